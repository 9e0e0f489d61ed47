//! A schema for a test, and short ways to say what goes into it.

use std::sync::Arc;
use std::time::Duration;

use cap_core::message::{Headers, Message};
use cap_core::storage::{
    ClaimRequest, Claimed, Claims, Entry, Identity, Lease, NewIncoming, NewOutgoing, Owner, RowCompletion,
    RowOutcome, Side, Storage as _, WriteBatch, WriteReport,
};
use cap_postgres::Postgres;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};

pub(crate) const GROUP: &str = "billing.v1";

pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/test".to_owned())
}

/// A schema that is dropped with this value, also when the test fails.
pub(crate) struct Database {
    pub(crate) schema: String,
    pub(crate) pool: PgPool,
    pub(crate) storage: Postgres,
}

impl Database {
    /// A schema name that nothing was made in yet.
    pub(crate) fn empty() -> Self {
        Self::named(&format!("cap_test_{:016x}", fastrand::u64(..)))
    }

    /// A schema of its own in the database of a pool.
    pub(crate) fn on(pool: PgPool) -> Self {
        let schema = format!("cap_test_{:016x}", fastrand::u64(..));
        let storage = Postgres::new(pool.clone()).schema(&schema).connections(3);
        Self { schema, pool, storage }
    }

    pub(crate) fn named(schema: &str) -> Self {
        let options = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(10));
        let pool = options.connect_lazy(&url()).unwrap();
        let storage = Postgres::new(pool.clone()).schema(schema).connections(3);
        Self { schema: schema.to_owned(), pool, storage }
    }

    /// A schema with its tables.
    pub(crate) async fn new() -> Self {
        let database = Self::empty();
        database.storage.check().unwrap();
        database.storage.initialize().await.unwrap();
        database
    }

    /// SQL of the test with `{s}` for the schema.
    pub(crate) fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(text.replace("{s}", &quoted(&self.schema)))
    }

    pub(crate) async fn execute(&self, text: &str) {
        sqlx::raw_sql(self.sql(text)).execute(&self.pool).await.unwrap();
    }

    pub(crate) async fn text(&self, query: &str) -> String {
        sqlx::query_scalar(self.sql(query)).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn count(&self, query: &str) -> i64 {
        sqlx::query_scalar(self.sql(query)).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn write(&self, batch: WriteBatch) -> WriteReport {
        self.storage.write(&owner("a"), &batch).await.unwrap()
    }

    pub(crate) async fn publish(&self, outgoing: Vec<NewOutgoing>) -> WriteReport {
        self.write(WriteBatch { outgoing, ..WriteBatch::default() }).await
    }

    pub(crate) async fn receive(&self, incoming: Vec<NewIncoming>) -> WriteReport {
        self.write(WriteBatch { incoming, ..WriteBatch::default() }).await
    }

    /// Completes one row, and says whether the lease held.
    pub(crate) async fn complete(&self, side: Side, lease: Lease, outcome: RowOutcome) -> bool {
        let row_completions = vec![RowCompletion { lease, outcome, publishes: Vec::new() }];
        let mut batch = WriteBatch::default();
        match side {
            Side::Outbox => batch.completed_outgoing = row_completions,
            Side::Inbox => batch.completed_incoming = row_completions,
        }
        let report = self.write(batch).await;
        *report.completed_outgoing.iter().chain(&report.completed_incoming).next().unwrap()
    }

    pub(crate) async fn claim(&self, side: Side) -> Vec<Claimed> {
        self.claims(side, 100).await.rows
    }

    pub(crate) async fn claims(&self, side: Side, limit: usize) -> Claims {
        let request = ClaimRequest::new(side, vec![GROUP.into()], limit);
        self.storage.claim(&owner("b"), &request).await.unwrap()
    }

    /// Lets every lease run out, and every delay pass.
    pub(crate) async fn let_time_pass(&self) {
        for states in ["outbox_state", "inbox_state"] {
            self.execute(&format!("UPDATE {{s}}.{states} SET due = due - interval '1 hour'")).await;
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop_schema = self.sql("SET lock_timeout = '20s'; DROP SCHEMA IF EXISTS {s} CASCADE");
        // The test's own runtime may be on its way down, and a drop cannot wait for it anyway.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pool = PgPool::connect(&url()).await.unwrap();
                sqlx::raw_sql(drop_schema).execute(&pool).await.unwrap();
            });
        });
        let is_dropped = thread.join().is_ok();
        assert!(is_dropped || std::thread::panicking(), "the schema {} could not be dropped", self.schema);
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) fn owner(node: &str) -> Owner {
    Owner { node: node.into(), version: "v1".into(), lease: Duration::from_secs(30) }
}

pub(crate) fn message(id: &str) -> Arc<Message> {
    let headers: Headers = [("cap-msg-id", id), ("cap-msg-name", "order.created")].into_iter().collect();
    Arc::new(Message::new(headers, &b"{}"[..]))
}

/// A message of the outbox that any node may claim.
pub(crate) fn outgoing(id: i64) -> NewOutgoing {
    NewOutgoing { id, message: message(&id.to_string()), delay: None, held: false }
}

pub(crate) fn held(id: i64) -> NewOutgoing {
    NewOutgoing { held: true, ..outgoing(id) }
}

pub(crate) fn delayed(id: i64) -> NewOutgoing {
    NewOutgoing { delay: Some(Duration::from_secs(60)), ..outgoing(id) }
}

/// A message of the inbox that any node may claim.
pub(crate) fn incoming(id: i64) -> NewIncoming {
    let entry = Entry::Scheduled { held: false };
    NewIncoming {
        id,
        group: GROUP.into(),
        message: message(&id.to_string()),
        entry,
        identity: Identity::default(),
    }
}

pub(crate) fn held_incoming(id: i64) -> NewIncoming {
    NewIncoming { entry: Entry::Scheduled { held: true }, ..incoming(id) }
}

/// The lease of a row that was inserted as held.
pub(crate) fn first_lease(id: i64) -> Lease {
    Lease { id, epoch: 1 }
}

pub(crate) fn ids(rows: &[Claimed]) -> Vec<i64> {
    rows.iter().map(|row| row.lease.id).collect()
}

/// A database of its own, which is dropped with this value, also when the test fails.
pub(crate) struct OwnDatabase {
    pub(crate) name: String,
    pub(crate) pool: PgPool,
}

impl OwnDatabase {
    pub(crate) async fn new() -> Self {
        Self::with("").await
    }

    /// `how` are the options of `CREATE DATABASE`.
    pub(crate) async fn with(how: &str) -> Self {
        let name = format!("cap_test_{:016x}", fastrand::u64(..));
        let server = PgPool::connect(&url()).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name} {how}"))).execute(&server).await.unwrap();
        server.close().await;
        let options = (*server.connect_options()).clone().database(&name);
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy_with(options);
        Self { name, pool }
    }

    /// Another pool of the same database, whose connections have this search path.
    pub(crate) fn pool_with_path(&self, path: &str) -> PgPool {
        let options = (*self.pool.connect_options()).clone().options([("search_path", path)]);
        PgPoolOptions::new().max_connections(4).connect_lazy_with(options)
    }

    pub(crate) async fn execute(&self, text: impl Into<String>) {
        sqlx::raw_sql(AssertSqlSafe(text.into())).execute(&self.pool).await.unwrap();
    }

    /// A pool of a new role that may connect and log in and nothing else. The role goes with the database.
    pub(crate) async fn role(&self, suffix: &str) -> (String, PgPool) {
        let name = format!("{}_{suffix}", self.name);
        self.execute(format!("CREATE ROLE {name} LOGIN PASSWORD 'own'")).await;
        let options = (*self.pool.connect_options()).clone().username(&name).password("own");
        (name, PgPoolOptions::new().max_connections(4).connect_lazy_with(options))
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        let drop_database = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        // Its roles have nothing outside of it.
        let drop_roles = AssertSqlSafe(format!(
            "DO $do$ DECLARE name text; BEGIN
                FOR name IN SELECT rolname FROM pg_roles WHERE rolname LIKE '{}\\_%' LOOP
                    EXECUTE 'DROP ROLE ' || name;
                END LOOP;
            END $do$",
            self.name
        ));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pool = PgPool::connect(&url()).await.unwrap();
                sqlx::raw_sql(drop_database).execute(&pool).await.unwrap();
                sqlx::raw_sql(drop_roles).execute(&pool).await.unwrap();
            });
        });
        let is_dropped = thread.join().is_ok();
        assert!(is_dropped || std::thread::panicking(), "the database {} could not be dropped", self.name);
    }
}
