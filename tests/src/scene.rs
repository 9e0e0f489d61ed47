//! A scene: a schema, an exchange and groups that belong to one test alone, and are gone after it.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cap_core::{Cap, CapBuilder, Handlers};
use cap_postgres::Postgres;
use cap_rabbitmq::RabbitMq;
use futures_util::FutureExt;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use sqlx::{Executor, PgPool};
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::TestWriter;

use crate::foreign::Foreign;
use crate::{amqp_url, database_url};

/// Stands in the connection strings of tests; a test fails if it is ever logged.
pub const SECRET: &str = "s3cret-of-the-tests";

/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// What one test plays in.
#[derive(Debug)]
pub struct Scene {
    name: String,
    pool: PgPool,
    /// The running buses; they end with the scene.
    buses: Mutex<Vec<Cap>>,
    /// The versions of the bus that were used, each with an exchange of its own.
    exchanges: Mutex<Vec<String>>,
    queues: Mutex<Vec<String>>,
    schemas: Mutex<Vec<String>>,
}

/// Plays a test's story, within a time limit, and clears the scene away whatever happened.
pub async fn scene(story: impl AsyncFnOnce(&Scene)) {
    log_to_the_test();
    let scene = Scene::new().await;
    let played = timeout(LIMIT, AssertUnwindSafe(story(&scene)).catch_unwind()).await;
    scene.clear().await;
    assert!(!LEAKED.load(Ordering::Relaxed), "a log line holds a password");
    match played {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => resume_unwind(panic),
        Err(elapsed) => panic!("the test took longer than {LIMIT:?}: {elapsed}"),
    }
}

impl Scene {
    async fn new() -> Self {
        let name = format!("cap_test_{:x}_{:08x}", std::process::id(), fastrand::u32(..));
        let pool =
            PgPool::connect(&database_url()).await.expect("the tests need a PostgreSQL: see scripts/test");
        Self {
            pool,
            buses: Mutex::default(),
            exchanges: Mutex::new(vec![name.clone()]),
            queues: Mutex::default(),
            schemas: Mutex::new(vec![name.clone()]),
            name,
        }
    }

    /// The scene's own name: of the schema, of the exchange, and before each group.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A pool of the application's, in the database that the bus stores in.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The full name of a group, which is its queue's.
    #[must_use]
    pub fn queue(&self, group: &str) -> String {
        format!("{}.{group}.v1", self.name)
    }

    /// Notes that messages of a group wait at the broker for so long, so that the queues are removed with the scene.
    pub fn waits_at_broker(&self, group: &str, delay: Duration) {
        let today = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400;
        let (queue, delay) = (self.queue(group), delay.as_millis());
        // Tomorrow's, too: the test may run at midnight.
        let names = (today..=today + 1).map(|day| format!("cap.delay.queue.{queue}.{delay}.{day}"));
        lock(&self.queues).extend(names);
    }

    /// The queue in which messages of a group wait for so long, if they began to wait today.
    #[must_use]
    pub fn delay_queue(&self, group: &str, delay: Duration) -> String {
        let today = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400;
        format!("cap.delay.queue.{}.{}.{today}", self.queue(group), delay.as_millis())
    }

    /// Notes that messages of any topic wait at the broker for so long.
    pub fn publishes_at_broker(&self, delay: Duration) {
        let today = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400;
        let (name, delay) = (&self.name, delay.as_millis());
        let exit = format!("cap.delay.exit.{name}");
        let names = (today..=today + 1).map(|day| format!("cap.delay.exchange.{name}.{delay}.{day}"));
        lock(&self.queues).extend(names.clone().chain([exit.clone()]));
        lock(&self.exchanges).extend(names.chain([exit]));
    }

    /// The store of the scene.
    #[must_use]
    pub fn storage(&self) -> Postgres {
        Postgres::new(self.pool.clone()).schema(&self.name)
    }

    /// A store of the scene in a schema with more to its name.
    #[must_use]
    pub fn storage_in(&self, suffix: &str) -> Postgres {
        let schema = format!("{}{suffix}", self.name);
        lock(&self.schemas).push(schema.clone());
        Postgres::new(self.pool.clone()).schema(&schema)
    }

    /// The broker of the scene.
    #[must_use]
    pub fn transport(&self) -> RabbitMq {
        self.transport_at(&amqp_url())
    }

    /// The broker of the scene, reached at another address.
    #[must_use]
    pub fn transport_at(&self, url: &str) -> RabbitMq {
        RabbitMq::new(url).exchange(&self.name)
    }

    /// A bus of this scene, on both servers, with the default group `main`.
    pub fn builder(&self) -> CapBuilder {
        self.builder_on(self.storage(), self.transport())
    }

    /// A bus of this scene on a store and a broker that are special in some way.
    pub fn builder_on(&self, storage: Postgres, transport: RabbitMq) -> CapBuilder {
        Cap::builder().handlers(Handlers::none()).storage(storage).transport(transport).configure(|options| {
            "main".clone_into(&mut options.default_group);
            options.group_prefix = Some(self.name.clone());
            options.shutdown_timeout = Duration::from_secs(10);
        })
    }

    /// Starts a bus that ends with the scene.
    pub async fn start(&self, builder: CapBuilder) -> Cap {
        let cap = builder.start().await.expect("the bus should start");
        self.keep(&cap).await;
        cap
    }

    /// Notes what a bus leaves on the broker, and shuts it down when the scene ends.
    pub async fn keep(&self, cap: &Cap) {
        self.note(cap).await;
        lock(&self.buses).push(cap.clone());
    }

    /// Notes what a bus leaves on the broker; for a bus that is to end before the scene does.
    pub async fn note(&self, cap: &Cap) {
        let groups = cap.health().await.groups.into_iter().map(|group| group.group);
        lock(&self.queues).extend(groups);
        lock(&self.exchanges).push(format!("{}.{}", self.name, cap.options().version));
    }

    /// Notes the queues of groups that a bus of another process has made.
    pub fn note_queues<'a>(&self, groups: impl IntoIterator<Item = &'a str>) {
        lock(&self.queues).extend(groups.into_iter().map(|group| self.queue(group)));
        lock(&self.exchanges).push(format!("{}.v1", self.name));
    }

    /// A peer on the broker that is not cap.
    pub async fn foreign(&self) -> Foreign {
        Foreign::connect(&self.name).await
    }

    /// A peer on the exchange of another version.
    pub async fn foreign_of_version(&self, version: &str) -> Foreign {
        Foreign::connect(&format!("{}.{version}", self.name)).await
    }

    async fn clear(self) {
        for cap in taken(self.buses) {
            // A test that failed may have left a handler that never ends.
            let _ = timeout(Duration::from_secs(20), cap.shutdown()).await;
        }
        clear_broker(&self.name, taken(self.queues), taken(self.exchanges)).await;
        for schema in taken(self.schemas) {
            let quoted = schema.replace('"', "\"\"");
            let statement = format!("DROP SCHEMA IF EXISTS \"{quoted}\" CASCADE");
            if let Err(error) = self.pool.execute(sqlx::AssertSqlSafe(statement)).await {
                complain(&format!("schema {schema} was left behind: {error}"));
            }
        }
        self.pool.close().await;
    }
}

async fn clear_broker(exchange: &str, queues: Vec<String>, exchanges: Vec<String>) {
    let foreign = Foreign::connect(exchange).await;
    let channel = foreign.channel();
    for queue in queues {
        let _ = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
    }
    for exchange in exchanges {
        let _ = channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await;
    }
    foreign.close().await;
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn taken<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[allow(clippy::print_stderr, reason = "the test's own output is where this is looked for")]
fn complain(line: &str) {
    eprintln!("{line}");
}

/// What the bus logs goes to the test's output, which is shown when it fails. `RUST_LOG` asks for more or less.
fn log_to_the_test() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,cap_core=debug"));
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Watched).with_ansi(false).try_init();
}

/// Whether the secret was ever logged.
static LEAKED: AtomicBool = AtomicBool::new(false);

/// The test's output, watched for the secret.
struct Watched;

impl Write for Watched {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()) {
            LEAKED.store(true, Ordering::Relaxed);
        }
        TestWriter::default().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
