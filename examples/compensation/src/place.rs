//! The servers, and this run's own names on them, so that runs do not meet: made at the start, removed at the end.

use std::time::{Duration, SystemTime};

use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgPool};

use super::BoxResult;

/// The exchange, before cap puts the version after it.
pub(crate) const EXCHANGE: &str = "cap.example.compensation";
/// The queue, before cap puts the version after it.
const GROUP: &str = "example.compensation";
/// The pauses of the handler's policy.
const MILLISECONDS: [u64; 3] = [1000, 2000, 4000];
const DAY: Duration = Duration::from_hours(24);

/// Where a run happens.
pub(crate) struct Place {
    pub(crate) pool: PgPool,
    pub(crate) broker: String,
    /// Part of the name of the exchange and of every queue.
    pub(crate) version: String,
    /// The schema of cap's tables.
    pub(crate) cap_schema: String,
    /// The schema of the business table, in which the pool's connections look.
    schema: String,
    started: SystemTime,
}

impl Place {
    /// Finds the servers.
    pub(crate) async fn find() -> BoxResult<Self> {
        let database = std::env::var("DATABASE_URL")
            .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".to_owned());
        let broker =
            std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned());
        let run = format!("{:08x}", fastrand::u32(..));
        let schema = format!("compensation_{run}");
        let options = database
            .parse::<PgConnectOptions>()
            .map_err(|error| format!("DATABASE_URL cannot be read: {error}"))?
            .options([("search_path", &schema)]);
        // Apart from the pool, which goes on trying for half a minute.
        options.connect().await.map_err(|error| {
            format!(
                "PostgreSQL cannot be reached ({error}); set DATABASE_URL, or start one on 127.0.0.1:5432"
            )
        })?;
        let pool = PgPoolOptions::new().max_connections(20).connect_with(options).await?;
        Connection::connect(&broker, ConnectionProperties::default()).await.map_err(|error| {
            format!("RabbitMQ cannot be reached ({error}); set AMQP_URL, or start one on 127.0.0.1:5672")
        })?;
        let (version, cap_schema) = (format!("run-{run}"), format!("{schema}_cap"));
        Ok(Self { pool, broker, version, cap_schema, schema, started: SystemTime::now() })
    }

    pub(crate) async fn make(&self) -> BoxResult<()> {
        let mut connection = self.pool.acquire().await?;
        let schema = &self.schema;
        connection.execute(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await?;
        let table = "CREATE TABLE receipts (invoice bigint PRIMARY KEY, receipt text NOT NULL, \
                     attempt bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())";
        connection.execute(table).await?;
        Ok(())
    }

    /// The delay queues that there are.
    pub(crate) async fn delay_queues(&self) -> BoxResult<Vec<String>> {
        let connection = self.connect().await?;
        let mut found = Vec::new();
        for queue in self.possible_delay_queues() {
            // A channel each: the broker closes one that asks for a queue that is not there.
            let channel = connection.create_channel().await?;
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let name = queue.as_str().into();
            if channel.queue_declare(name, passive, FieldTable::default()).await.is_ok() {
                found.push(queue);
            }
        }
        Ok(found)
    }

    pub(crate) async fn remove(&self) -> BoxResult<()> {
        let channel = self.connect().await?.create_channel().await?;
        let mut queues = self.possible_delay_queues();
        queues.push(format!("{GROUP}.{}", self.version));
        for queue in &queues {
            channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
        }
        let exchange = format!("{EXCHANGE}.{}", self.version);
        channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await?;
        let drop = format!("DROP SCHEMA IF EXISTS {}, {} CASCADE", self.schema, self.cap_schema);
        self.pool.execute(AssertSqlSafe(drop)).await?;
        Ok(())
    }

    /// By their names: the group's queue, the pause, and the day since 1970 on which a message came. The run may have
    /// gone past midnight.
    fn possible_delay_queues(&self) -> Vec<String> {
        let day = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / DAY.as_secs()
        };
        let days = day(self.started)..=day(SystemTime::now());
        let name = |ms, day| format!("cap.delay.queue.{GROUP}.{}.{ms}.{day}", self.version);
        days.flat_map(|day| MILLISECONDS.map(|ms| name(ms, day))).collect()
    }

    async fn connect(&self) -> BoxResult<Connection> {
        Ok(Connection::connect(&self.broker, ConnectionProperties::default()).await?)
    }
}
