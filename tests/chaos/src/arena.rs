//! Where a scenario takes place: schemas, an exchange, queues and a folder that belong to it alone.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cap_ledger::{End, Entry, Event, Group, Ledger, Told};
use futures_util::FutureExt;
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::now;
use crate::job::{FOLLOW, Job, ONCE, PLAIN};
use crate::outcome::RowOutcome;
use crate::process::{Node, program};
use crate::rows::{Rows, create_shop, drop_all, held, unlocked};
use crate::settings::Settings;
use cap_test_proxy::Proxy;

/// Where a scenario takes place.
#[derive(Debug)]
pub struct Arena {
    pub(crate) scene: String,
    /// The real addresses, which only the test itself uses.
    amqp: String,
    pub(crate) pool: PgPool,
    /// What is between the nodes and the servers.
    pub(crate) broker: Proxy,
    pub(crate) database: Proxy,
    settings: Settings,
    folder: PathBuf,
    nodes: AtomicU64,
    seen: Mutex<Vec<Entry>>,
    /// Whether a handler may run again only with a cause; else a node may lose its leases at any time.
    strict: bool,
    /// Whether its notes and logs are to be kept.
    broken: AtomicBool,
}

/// A story that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(4);

impl Arena {
    /// An arena on these servers, by default the shared ones.
    pub async fn new(seed: u64, amqp: &str, database: &str) -> Self {
        let scene = format!("cap_chaos_{:x}_{:08x}", std::process::id(), fastrand::u32(..));
        let pool = PgPoolOptions::new()
            .max_connections(3)
            .acquire_timeout(Duration::from_secs(30))
            .connect(database)
            .await
            .expect("the tests need a PostgreSQL: see scripts/test");
        create_shop(&pool, &scene).await;
        let folder = std::env::temp_dir().join(&scene);
        std::fs::create_dir(&folder).expect("a folder for the nodes' notes");
        let (broker, network) = (Proxy::start(amqp).await, Proxy::start(database).await);
        let settings = Settings {
            amqp: broker.url(amqp),
            database: network.url(database),
            scene: scene.clone(),
            node: String::new(),
            seed,
            notes: PathBuf::new(),
            lease: Duration::from_millis(1500),
            attempts: 8,
            retry_pause: Duration::from_millis(150),
            keep: Duration::from_secs(120),
            handles: true,
            contention: false,
            one_thread: false,
            relay_buffer: 256,
            patience: Duration::from_secs(4),
        };
        Self {
            scene,
            amqp: amqp.to_owned(),
            pool,
            broker,
            database: network,
            settings,
            folder,
            nodes: AtomicU64::new(0),
            seen: Mutex::default(),
            strict: false,
            broken: AtomicBool::new(false),
        }
    }

    /// Changes what its nodes are told.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Expects that no handler runs again without a cause: for scenarios in which no node can lose its leases.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self.settings.lease = Duration::from_secs(15);
        self
    }

    /// Starts a node.
    pub async fn node(&self) -> Node {
        self.node_with(|_| {}, &[]).await
    }

    /// Starts a node that is to stand still at a point, the `count`-th time that it gets there.
    pub async fn node_stopping_at(
        &self,
        point: &str,
        count: u64,
        change: impl FnOnce(&mut Settings),
    ) -> Node {
        let stop = format!("{point}:{count}");
        let change = |settings: &mut Settings| {
            settings.one_thread = true;
            change(settings);
        };
        self.node_with(change, &[("CAP_STOP_AT", &stop)]).await
    }

    /// Starts a node with other settings and more in its environment.
    pub async fn node_with(&self, change: impl FnOnce(&mut Settings), environment: &[(&str, &str)]) -> Node {
        self.node_of(&program(), change, environment).await
    }

    /// Starts a node of another version, with its program.
    pub async fn node_of(
        &self,
        program: &Path,
        change: impl FnOnce(&mut Settings),
        environment: &[(&str, &str)],
    ) -> Node {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        let mut settings = self.settings.clone();
        settings.node = format!("n{number}");
        settings.seed = settings.seed.wrapping_mul(1000).wrapping_add(number);
        settings.notes = self.folder.join(format!("{}.notes", settings.node));
        change(&mut settings);
        if !self.strict {
            // Short leases are lost on a busy machine: then things are done again that cost nothing but work.
            self.note(Event::Trouble { node: settings.node.clone() });
        }
        Node::start(program, &settings, environment).await
    }

    /// Notes something that the test did.
    pub fn note(&self, event: Event) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Entry { at: now(), event });
    }

    /// Kills a node.
    pub async fn kill(&self, mut node: Node) {
        node.kill().await;
        self.note(Event::Died { node: node.name().to_owned() });
    }

    /// Has nodes shut down, one after the other.
    pub async fn end(&self, nodes: Vec<Node>) {
        for mut node in nodes {
            node.end().await;
        }
    }

    /// Judges what has happened so far. Waits for a database that is away.
    pub async fn outcome(&self) -> RowOutcome {
        let deadline = Instant::now() + Duration::from_secs(60);
        let rows = loop {
            match Rows::read(&self.pool, &self.scene).await {
                Ok(rows) => break rows,
                Err(error) => assert!(Instant::now() < deadline, "the rows cannot be read: {error}"),
            }
            sleep(Duration::from_millis(100)).await;
        };
        self.judge(rows)
    }

    fn judge(&self, rows: Rows) -> RowOutcome {
        let mut ledger = Ledger::default();
        for (group, once) in [(ONCE, true), (PLAIN, false)] {
            let promised = Group { once, notices: true, ..Group::plain() };
            ledger.group(group, promised);
        }
        for file in std::fs::read_dir(&self.folder).expect("the folder of the notes") {
            let path = file.expect("the folder of the notes").path();
            if path.extension().is_some_and(|extension| extension == "notes") {
                let text = std::fs::read_to_string(&path).expect("notes");
                ledger.read_lines(&text).expect("notes can be read");
            }
        }
        ledger.extend(self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        decide(&mut ledger, &rows);
        ledger.extend(rows.entries);
        let done = |entry: &&Entry| {
            matches!(entry.event, Event::Ended { how: End::Succeeded, .. } | Event::FollowUp { .. })
        };
        let runs = ledger.entries().iter().filter(done).count();
        RowOutcome { report: ledger.judge(), runs, unfinished: rows.unfinished, strange: rows.strange }
    }

    /// Waits until nothing waits for anything any more, or until nothing has got done for so long. What is wrong then
    /// stands in the outcome.
    pub async fn quiet(&self, patience: Duration) {
        let (mut progress, mut since) = (0, Instant::now());
        loop {
            let outcome = self.outcome().await;
            if outcome.progress() != progress {
                (progress, since) = (outcome.progress(), Instant::now());
            }
            if outcome.is_quiet() || since.elapsed() > patience {
                return;
            }
            sleep(Duration::from_millis(150)).await;
        }
    }

    /// Waits for quiet, ends the nodes, and judges for good.
    pub async fn close(&self, nodes: Vec<Node>, patience: Duration) -> RowOutcome {
        self.quiet(patience).await;
        self.end(nodes).await;
        let outcome = self.outcome().await;
        self.broken.store(!outcome.is_clean(), Ordering::Relaxed);
        outcome
    }

    /// Plays a story, within a time limit, and clears the arena away whatever happened.
    pub async fn play<T>(self, story: impl AsyncFnOnce(&Self) -> T) -> T {
        let played = timeout(LIMIT, AssertUnwindSafe(story(&self)).catch_unwind()).await;
        let clean = matches!(played, Ok(Ok(_))) && !self.broken.load(Ordering::Relaxed);
        self.clear(clean).await;
        match played {
            Ok(Ok(told)) => told,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(elapsed) => panic!("the story took longer than {LIMIT:?}: {elapsed}"),
        }
    }

    /// The messages that this node holds a lease on, in the inbox.
    pub async fn held_by(&self, node: &Node) -> BTreeSet<i64> {
        held(&self.pool, &self.scene, node.name()).await.unwrap_or_default()
    }

    /// Whether no open transaction, of a node that stands still for instance, has locked any of these.
    pub async fn can_be_taken_over(&self, node: &Node, held: &BTreeSet<i64>) -> bool {
        let unlocked = unlocked(&self.pool, &self.scene, node.name()).await.unwrap_or_default();
        held.is_subset(&unlocked)
    }

    /// The names of the queues.
    #[must_use]
    pub fn queues(&self) -> [String; 3] {
        [ONCE, PLAIN, FOLLOW].map(|group| format!("{}.{group}.v1", self.scene))
    }

    /// Waits until so many retries wait at the broker.
    pub async fn retries_wait(&self, count: u32, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            assert!(
                Instant::now() < deadline,
                "there are fewer than {count} retries at the broker after {limit:?}"
            );
            let (connection, _) = self.channel().await.expect("the broker is there");
            let mut waiting = 0;
            for queue in self.delay_queues() {
                let channel = connection.create_channel().await.expect("a channel");
                let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                let declared =
                    channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await;
                waiting += declared.map_or(0, |queue| queue.message_count());
            }
            let _ = connection.close(200, "".into()).await;
            if waiting >= count {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The names of the queues in which retries wait: of yesterday, today and tomorrow, as a test may run at midnight.
    fn delay_queues(&self) -> impl Iterator<Item = String> {
        let today = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() / 86_400;
        let pause = self.settings.retry_pause.as_millis();
        let group = format!("{}.{ONCE}.v1", self.scene);
        (today - 1..=today + 1).map(move |day| format!("cap.delay.queue.{group}.{pause}.{day}"))
    }

    /// A channel to the broker, past the network that is harmed.
    async fn channel(&self) -> Result<(Connection, Channel), lapin::Error> {
        let connection = Connection::connect(&self.amqp, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok((connection, channel))
    }

    /// Deletes the queues under their consumers.
    pub async fn delete_queues(&self) {
        let (connection, channel) = self.channel().await.expect("the broker is there");
        for queue in self.queues() {
            let deleted = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
            deleted.expect("a queue can be deleted");
        }
        let _ = connection.close(200, "".into()).await;
    }

    /// Waits until all queues are there and have a consumer.
    pub async fn queues_are_consumed(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        'again: loop {
            assert!(Instant::now() < deadline, "the queues have no consumers after {limit:?}");
            sleep(Duration::from_millis(100)).await;
            let Ok((connection, channel)) = self.channel().await else { continue };
            for queue in self.queues() {
                let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                match channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await {
                    Ok(queue) if queue.consumer_count() > 0 => {}
                    _ => continue 'again,
                }
            }
            let _ = connection.close(200, "".into()).await;
            return;
        }
    }

    /// Removes what it left on the servers. Notes and logs stay when they are needed.
    async fn clear(self, clean: bool) {
        let cleared = timeout(Duration::from_secs(20), async {
            if let Ok((connection, channel)) = self.channel().await {
                for queue in self.queues().into_iter().chain(self.delay_queues()) {
                    let _ = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
                }
                for exchange in [self.scene.clone(), format!("{}.v1", self.scene)] {
                    let options = ExchangeDeleteOptions::default();
                    let _ = channel.exchange_delete(exchange.as_str().into(), options).await;
                }
                let _ = connection.close(200, "".into()).await;
            }
            let _ = drop_all(&self.pool, &self.scene).await;
        });
        let _ = cleared.await;
        self.pool.close().await;
        if clean {
            let _ = std::fs::remove_dir_all(&self.folder);
        } else {
            complain(&format!("the nodes' notes and logs are in {}", self.folder.display()));
        }
    }
}

/// What a publisher could not say any more, the application's row of the same transaction says.
fn decide(ledger: &mut Ledger, rows: &Rows) {
    let mut silent = BTreeSet::new();
    for entry in ledger.entries() {
        match &entry.event {
            Event::Publish { message, .. } if Job::was_within(message) => silent.insert(message.clone()),
            Event::Told { message, .. } => silent.remove(message),
            _ => false,
        };
    }
    for message in silent {
        let told = if rows.booked.contains(&message) { Told::Stored } else { Told::RolledBack };
        ledger.note(u64::MAX, Event::Told { message, told });
    }
}

#[allow(clippy::print_stderr, reason = "the test's own output is where this is looked for")]
fn complain(line: &str) {
    eprintln!("{line}");
}
