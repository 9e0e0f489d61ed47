//! The harm that is done.

use std::time::Duration;

use fastrand::Rng;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tokio::time::sleep;

use crate::arena::Arena;
use crate::process::Node;
use crate::scenario::Servers;
use cap_test_proxy::Network;

/// The name of the role that nodes log in as on a private database.
pub(crate) const ROLE: &str = "shop";

/// One kind of harm. Those that need a private server are only drawn where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their names in the table say it")]
pub enum Fault {
    Kill,
    KillAtPoint,
    Pause,
    Roll,
    CutBroker,
    SlowBroker,
    DeafBroker,
    BrokerUnheard,
    TornBroker,
    CutDatabase,
    SlowDatabase,
    DeafDatabase,
    DatabaseUnheard,
    TornDatabase,
    StopBroker,
    KillBroker,
    CloseConnections,
    MemoryAlarm,
    TerminateBackends,
    RestartDatabase,
    StopDatabase,
    TooManyConnections,
    LockTables,
    StatementTimeout,
    ReadOnly,
    Serializable,
    FullDisk,
}

impl Fault {
    /// Harm to nodes and networks, for which no server needs to be private.
    pub const OWN: [Self; 14] = [
        Self::Kill,
        Self::KillAtPoint,
        Self::Pause,
        Self::Roll,
        Self::CutBroker,
        Self::SlowBroker,
        Self::DeafBroker,
        Self::BrokerUnheard,
        Self::TornBroker,
        Self::CutDatabase,
        Self::SlowDatabase,
        Self::DeafDatabase,
        Self::DatabaseUnheard,
        Self::TornDatabase,
    ];

    /// Harm to a private broker.
    pub const BROKER: [Self; 4] =
        [Self::StopBroker, Self::KillBroker, Self::CloseConnections, Self::MemoryAlarm];

    /// Harm to a private database. Beside it there is [`FullDisk`](Self::FullDisk), where a small disk can be had.
    pub const DATABASE: [Self; 8] = [
        Self::TerminateBackends,
        Self::RestartDatabase,
        Self::StopDatabase,
        Self::TooManyConnections,
        Self::LockTables,
        Self::StatementTimeout,
        Self::ReadOnly,
        Self::Serializable,
    ];

    /// Whether no node can lose a lease by it, so that no handler may run again for it.
    pub(crate) fn spares_leases(self) -> bool {
        let network =
            [Self::CutBroker, Self::SlowBroker, Self::DeafBroker, Self::BrokerUnheard, Self::TornBroker];
        Self::BROKER.contains(&self) || network.contains(&self)
    }

    /// As the table names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "node killed (SIGKILL)",
            Self::KillAtPoint => "node killed at a named point",
            Self::Pause => "node paused past its lease",
            Self::Roll => "rolling restart",
            Self::CutBroker => "network to the broker cut",
            Self::SlowBroker => "network to the broker slow",
            Self::DeafBroker => "nothing reaches the broker",
            Self::BrokerUnheard => "nothing comes from the broker",
            Self::TornBroker => "broker's connections torn in a frame",
            Self::CutDatabase => "network to the database cut",
            Self::SlowDatabase => "network to the database slow",
            Self::DeafDatabase => "nothing reaches the database",
            Self::DatabaseUnheard => "nothing comes from the database",
            Self::TornDatabase => "database's connections torn",
            Self::StopBroker => "broker stopped for a while",
            Self::KillBroker => "broker killed and booted",
            Self::CloseConnections => "broker closed all connections",
            Self::MemoryAlarm => "broker's memory alarm",
            Self::TerminateBackends => "backends terminated",
            Self::RestartDatabase => "database restarted at once",
            Self::StopDatabase => "database stopped for a while",
            Self::TooManyConnections => "too many connections",
            Self::LockTables => "tables locked by a rival",
            Self::StatementTimeout => "statement time-out of 1 ms",
            Self::ReadOnly => "database read-only",
            Self::Serializable => "serialisable transactions",
            Self::FullDisk => "database's disk full",
        }
    }

    /// Does it, and repairs what can be repaired.
    pub(crate) async fn strike(
        self,
        arena: &Arena,
        nodes: &mut Vec<Node>,
        servers: &mut Servers,
        random: &mut Rng,
    ) {
        match self {
            Self::Kill | Self::KillAtPoint | Self::Pause | Self::Roll => {
                self.on_nodes(arena, nodes, random).await;
            }
            Self::StopBroker | Self::KillBroker | Self::CloseConnections | Self::MemoryAlarm => {
                self.on_broker(servers, random).await;
            }
            _ if Self::DATABASE.contains(&self) || self == Self::FullDisk => {
                self.on_database(arena, servers, random).await;
            }
            _ => self.on_networks(arena, random).await,
        }
    }

    async fn on_nodes(self, arena: &Arena, nodes: &mut Vec<Node>, random: &mut Rng) {
        let victim = random.usize(..nodes.len());
        match self {
            Self::Kill => {
                arena.kill(nodes.swap_remove(victim)).await;
                nodes.push(arena.node().await);
            }
            Self::KillAtPoint => {
                let point = POINTS[random.usize(..POINTS.len())];
                let mut node = arena.node_stopping_at(point, random.u64(1..12), |_| {}).await;
                node.publish(20).await;
                // Some points are far: then it dies where it is.
                let _ = node.says("stopped at", Duration::from_secs(3)).await;
                arena.kill(node).await;
            }
            Self::Pause => {
                nodes[victim].pause();
                sleep(Duration::from_millis(random.u64(1800..3500))).await;
                nodes[victim].resume();
            }
            _ => {
                for _ in 0..nodes.len() {
                    let mut old = nodes.remove(0);
                    nodes.push(arena.node().await);
                    old.end().await;
                }
            }
        }
    }

    async fn on_networks(self, arena: &Arena, random: &mut Rng) {
        let slow = Network::Slow(Duration::from_millis(random.u64(5..60)));
        let torn = Network::CloseAfter(random.usize(1..700));
        let (network, state) = match self {
            Self::SlowBroker => (&arena.broker, slow),
            Self::DeafBroker => (&arena.broker, Network::ServerUnreachable),
            Self::BrokerUnheard => (&arena.broker, Network::ServerSilent),
            Self::TornBroker => (&arena.broker, torn),
            Self::CutDatabase => (&arena.database, Network::Down),
            Self::SlowDatabase => (&arena.database, slow),
            Self::DeafDatabase => (&arena.database, Network::ServerUnreachable),
            Self::DatabaseUnheard => (&arena.database, Network::ServerSilent),
            Self::TornDatabase => (&arena.database, torn),
            _ => (&arena.broker, Network::Down),
        };
        network.set(state);
        sleep(Duration::from_millis(random.u64(300..2500))).await;
        network.set(Network::Up);
    }

    async fn on_broker(self, servers: &mut Servers, random: &mut Rng) {
        let Some(broker) = &mut servers.broker else { return };
        let (harm, mend) = match self {
            Self::StopBroker => ("stop", Some("start")),
            Self::KillBroker => ("kill", Some("boot")),
            Self::MemoryAlarm => ("alarm", Some("calm")),
            _ => ("close", None),
        };
        broker.tell(harm).await;
        if let Some(mend) = mend {
            sleep(Duration::from_millis(random.u64(200..1500))).await;
            broker.tell(mend).await;
        }
    }

    async fn on_database(self, arena: &Arena, servers: &mut Servers, random: &mut Rng) {
        let Some((database, admin)) = &mut servers.database else { return };
        let time = Duration::from_millis(random.u64(500..2000));
        match self {
            Self::TerminateBackends => {
                for _ in 0..5 {
                    terminate(admin).await;
                    sleep(Duration::from_millis(random.u64(20..300))).await;
                }
            }
            Self::RestartDatabase => database.tell("restart").await,
            Self::FullDisk => {
                database.tell("fill").await;
                sleep(time).await;
                database.tell("free").await;
            }
            Self::StopDatabase => {
                database.tell("stop").await;
                sleep(time).await;
                database.tell("start").await;
            }
            Self::LockTables => lock_tables(admin, &arena.scene, time).await,
            Self::TooManyConnections => {
                role(admin, "CONNECTION LIMIT 2").await;
                sleep(time).await;
                role(admin, "CONNECTION LIMIT -1").await;
            }
            _ => {
                let (name, value) = match self {
                    Self::StatementTimeout => ("statement_timeout", "'1ms'"),
                    Self::ReadOnly => ("default_transaction_read_only", "on"),
                    _ => ("default_transaction_isolation", "serializable"),
                };
                role(admin, &format!("SET {name} = {value}")).await;
                sleep(time).await;
                role(admin, &format!("RESET {name}")).await;
            }
        }
    }
}

/// Every point at which a process can be stopped.
pub const POINTS: [&str; 29] = [
    "schema.before",
    "schema.after",
    "insert.before",
    "insert.after",
    "within.before",
    "within.after",
    "commit.before",
    "commit.after",
    "send.before",
    "send.after",
    "mark.before",
    "mark.after",
    "receive.after",
    "acknowledge.before",
    "acknowledge.after",
    "handler.before",
    "handler.after",
    "complete.before",
    "complete.after",
    "handler-commit.before",
    "handler-commit.after",
    "claim.before",
    "claim.after",
    "delay.before",
    "delay.after",
    "renew.before",
    "renew.after",
    "collect.before",
    "collect.after",
];

/// A setting of the nodes' role. Sessions learn of it by being made anew.
async fn role(admin: &PgPool, what: &str) {
    patiently(admin, &format!("ALTER ROLE {ROLE} {what}")).await;
    terminate(admin).await;
}

async fn terminate(admin: &PgPool) {
    let statement =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'");
    patiently(admin, &statement).await;
}

/// The administrator's own connections may have died in an earlier fault.
async fn patiently(admin: &PgPool, statement: &str) {
    for _ in 0..100 {
        if admin.execute(AssertSqlSafe(statement.to_owned())).await.is_ok() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{statement}: the private database does not answer");
}

/// A rival takes both state tables, in the order that is the other way round from a outcome's.
async fn lock_tables(admin: &PgPool, scene: &str, time: Duration) {
    let statement = format!(
        "BEGIN; SET LOCAL lock_timeout = '3s'; \
         LOCK TABLE \"{scene}\".outbox_state IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep({seconds}); \
         LOCK TABLE \"{scene}\".inbox_state IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep({seconds}); COMMIT",
        seconds = time.as_secs_f64() / 2.0
    );
    if let Ok(mut connection) = admin.acquire().await {
        // It may be the victim of the deadlock itself, which is as good.
        if connection.execute(AssertSqlSafe(statement)).await.is_err() {
            let _ = connection.execute("ROLLBACK").await;
        }
    }
}
