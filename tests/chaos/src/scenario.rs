//! A story: nodes that work, harm that is done to them meanwhile, and the judgement when everything is at rest.

use std::collections::BTreeMap;
use std::time::Duration;

use cap_ledger::Class;
use fastrand::Rng;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tokio::time::sleep;

use crate::arena::Arena;
use crate::fault::{Fault, ROLE};
use crate::keeper::Keeper;
use crate::outcome::RowOutcome;
use crate::process::Node;
use crate::{amqp_url, database_url};

/// The private servers, where a scenario has some; else it takes place on the shared ones.
#[derive(Debug, Default)]
pub struct Servers {
    pub(crate) broker: Option<Keeper>,
    /// With its administrator.
    pub(crate) database: Option<(Keeper, PgPool)>,
    /// The database has a small disk of its own, which can be filled.
    small_disk: bool,
}

impl Servers {
    /// Starts a private broker. `false` where there is none to be started.
    pub async fn start_broker(&mut self) -> bool {
        self.broker = Keeper::start("rabbitmq").await;
        self.broker.is_some()
    }

    /// Starts a private database. `false` where there is none to be started.
    pub async fn start_database(&mut self) -> bool {
        let Some(mut keeper) = Keeper::start("postgres").await else { return false };
        let admin =
            PgPoolOptions::new().max_connections(2).connect(keeper.url()).await.expect("the administrator");
        let statements = format!(
            "CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}'; GRANT ALL ON DATABASE postgres TO {ROLE}; \
             ALTER ROLE {ROLE} SET deadlock_timeout = '100ms'"
        );
        admin.execute(AssertSqlSafe(statements)).await.expect("a role for the nodes");
        if let Some(folder) = keeper.small_disk().await {
            self.small_disk = true;
            let tablespace = format!("CREATE TABLESPACE small LOCATION '{folder}'");
            admin.execute(AssertSqlSafe(tablespace)).await.expect("a small disk");
            let statements = format!(
                "GRANT CREATE ON TABLESPACE small TO {ROLE}; ALTER ROLE {ROLE} SET default_tablespace = 'small'"
            );
            admin.execute(AssertSqlSafe(statements)).await.expect("a small disk for the nodes");
        } else {
            complain("LEFT OUT: a full disk, as only root can make one");
        }
        self.database = Some((keeper, admin));
        true
    }

    /// An arena on these servers.
    pub async fn arena(&self, seed: u64) -> Arena {
        let amqp = self.broker.as_ref().map_or_else(amqp_url, |keeper| keeper.url().to_owned());
        let database = self.database.as_ref().map_or_else(database_url, |(keeper, _)| as_role(keeper.url()));
        Arena::new(seed, &amqp, &database).await
    }

    /// What can be done to them, and to nodes and networks.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Fault::OWN.to_vec();
        if self.broker.is_some() {
            faults.extend(Fault::BROKER);
        }
        if self.database.is_some() {
            faults.extend(Fault::DATABASE);
            faults.extend(self.small_disk.then_some(Fault::FullDisk));
        }
        faults
    }

    /// Stops the broker, which has been started, and starts it again.
    pub async fn restart_broker(&mut self) {
        if let Some(broker) = &mut self.broker {
            broker.tell("stop").await;
            broker.tell("start").await;
        }
    }

    /// Stops them, and waits until they are gone.
    pub async fn stop(self) {
        if let Some(keeper) = self.broker {
            keeper.stop().await;
        }
        if let Some((keeper, admin)) = self.database {
            admin.close().await;
            keeper.stop().await;
        }
    }
}

/// Has every queue used once. RabbitMQ 3.10 was seen to boot with a quorum queue that neither confirms nor delivers,
/// after it was killed within a second of the queue's declaration; no client can repair that.
async fn complete(arena: &Arena, nodes: &mut [Node]) {
    for node in nodes {
        node.publish(3).await;
        node.has_published().await;
    }
    arena.quiet(QUIET).await;
}

#[allow(clippy::print_stderr, reason = "a test that leaves something out says so")]
fn complain(line: &str) {
    eprintln!("{line}");
}

/// The same server for the nodes' role.
fn as_role(url: &str) -> String {
    let server = url.rsplit_once('@').map_or(url, |(_, server)| server);
    format!("postgres://{ROLE}:{ROLE}@{server}")
}

/// What happens.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What everything is drawn from.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many messages each of them publishes between two faults.
    pub messages: usize,
    /// The harm, one after the other.
    pub faults: Vec<Fault>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The judgement.
    pub outcome: RowOutcome,
    /// How often each fault was injected.
    pub injected: BTreeMap<Fault, usize>,
}

impl Outcome {
    /// How many messages and groups of this class there are.
    #[must_use]
    pub fn count(&self, class: Class) -> usize {
        self.outcome.counts().get(&class).copied().unwrap_or_default()
    }
}

/// So long nothing gets done only where nothing will.
const QUIET: Duration = Duration::from_secs(30);

impl Scenario {
    /// A random one, with up to six nodes and five faults.
    #[must_use]
    pub fn random(seed: u64, faults: &[Fault]) -> Self {
        let mut random = Rng::with_seed(seed);
        let count = random.usize(1..=5);
        let faults = (0..count).map(|_| faults[random.usize(..faults.len())]).collect();
        Self { seed, nodes: random.usize(2..=4), messages: random.usize(10..60), faults }
    }

    /// Plays it.
    pub async fn play(&self, servers: &mut Servers) -> Outcome {
        let mut random = Rng::with_seed(self.seed);
        let arena = servers.arena(self.seed).await.with(|settings| {
            // Deadlocks are found soon only where the server was told to look for them soon.
            settings.contention = servers.database.is_some();
            // So many failures of a database in trouble are nobody's fault.
            settings.attempts = 40;
            settings.relay_buffer = if random.bool() { 4 } else { 256 };
        });
        let spared = self.faults.iter().all(|fault| fault.spares_leases());
        let arena = if spared { arena.strict() } else { arena };
        arena.play(async |arena| self.on(arena, servers, &mut random).await).await
    }

    async fn on(&self, arena: &Arena, servers: &mut Servers, random: &mut Rng) -> Outcome {
        let mut nodes = Vec::new();
        for _ in 0..self.nodes {
            nodes.push(arena.node().await);
        }
        if servers.broker.is_some() {
            complete(arena, &mut nodes).await;
        }
        let mut injected = BTreeMap::new();
        for fault in &self.faults {
            for node in &mut nodes {
                node.publish(self.messages).await;
            }
            sleep(Duration::from_millis(random.u64(100..700))).await;
            fault.strike(arena, &mut nodes, servers, random).await;
            *injected.entry(*fault).or_default() += 1;
        }
        for node in &mut nodes {
            node.publish(self.messages / 2 + 1).await;
        }
        for node in &mut nodes {
            node.has_published().await;
        }
        let outcome = arena.close(nodes, QUIET).await;
        Outcome { outcome, injected }
    }
}
