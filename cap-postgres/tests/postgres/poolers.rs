//! `PgBouncer` between us and the server (issue 8, row 1).

use std::time::Duration;

use cap_core::error::{StartError, StorageErrorKind};
use cap_core::prelude::*;
use cap_postgres::{PgTx, Postgres};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgPool};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::private::Private;
use crate::support::{Database, url};

const LIMIT: Duration = Duration::from_secs(60);

struct Table {
    insert: String,
    done: mpsc::UnboundedSender<i64>,
}

async fn book(n: i64, State(table): State<Table>, mut tx: PgTx) -> Result<(), sqlx::Error> {
    // Unnamed, as everything has to be behind a transaction pooler without prepared statements.
    let insert = sqlx::query(AssertSqlSafe(table.insert.clone())).persistent(false);
    insert.bind(n).execute(&mut *tx).await?;
    let _ = table.done.send(n);
    Ok(())
}

fn pool_at(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(8).acquire_timeout(LIMIT).connect_lazy(url).unwrap()
}

/// A bus that books what it receives, on tables that are there already.
async fn start(
    database: &Database,
    storage: &Postgres,
) -> (Result<Cap, StartError>, mpsc::UnboundedReceiver<i64>) {
    database.execute("CREATE TABLE {s}.ledger (number bigint PRIMARY KEY)").await;
    let (done, handled) = mpsc::unbounded_channel();
    let insert = database.sql("INSERT INTO {s}.ledger VALUES ($1)").0;
    let builder =
        Cap::builder().handlers(Handlers::none()).storage(storage.clone()).transport(MemoryTransport::new());
    let builder = builder.state(Table { insert, done }).subscribe("book", book);
    let builder = builder.configure(|options| {
        options.default_group = "books".into();
        options.group_concurrency = 8;
    });
    (builder.start().await, handled)
}

async fn wait_for(handled: &mut mpsc::UnboundedReceiver<i64>, count: usize) {
    for _ in 0..count {
        timeout(LIMIT, handled.recv()).await.unwrap().unwrap();
    }
}

async fn works_in_session_mode(ignored: &str) {
    let pooler = Private::start(&["pgbouncer", "session", ignored]).await;
    let database = Database::new().await;
    // What our connections have set, as the server sees it.
    database
        .execute(
            "CREATE TABLE {s}.seen (setting text); GRANT ALL ON {s}.seen TO PUBLIC;
             CREATE FUNCTION {s}.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO {s}.seen VALUES (current_setting('enable_seqscan') || current_setting('lock_timeout'));
                 RETURN NULL; END $$;
             CREATE TRIGGER note AFTER INSERT ON {s}.outbox FOR EACH STATEMENT EXECUTE FUNCTION {s}.note()",
        )
        .await;
    let storage = Postgres::new(pool_at(&pooler.urls[0])).schema(&database.schema).allow("note");
    let (cap, mut handled) = start(&database, &storage).await;
    let cap = cap.unwrap();
    cap.publish("book", &1_i64).await.unwrap();
    wait_for(&mut handled, 1).await;
    assert!(cap.health().await.is_healthy());
    assert_eq!(database.text("SELECT string_agg(DISTINCT setting, ',') FROM {s}.seen").await, "off30s");
    cap.shutdown().await.unwrap();
    pooler.stop().await;
}

#[tokio::test]
async fn session_mode_that_knows_no_options_works() {
    works_in_session_mode("extra_float_digits").await;
}

#[tokio::test]
async fn session_mode_that_drops_options_keeps_settings() {
    works_in_session_mode("extra_float_digits,options").await;
}

#[tokio::test]
async fn without_sessions_start_fails_and_says_what_works() {
    for mode in ["transaction", "statement"] {
        let pooler = Private::start(&["pgbouncer", mode, "extra_float_digits,options"]).await;
        let database = Database::new().await;
        let pool = pool_at(&pooler.urls[0]);
        let storage = Postgres::new(pool.clone()).schema(&database.schema);
        let (cap, _handled) = timeout(Duration::from_secs(20), start(&database, &storage)).await.unwrap();
        let StartError::Storage(error) = cap.unwrap_err() else { panic!("another error") };
        assert_eq!(error.kind(), StorageErrorKind::Unusable);
        for word in ["LISTEN", "prepared statements", "transaction", ".direct(", "within(", "PgTx"] {
            assert!(error.to_string().contains(word), "{word} in {error}");
        }
        if mode == "transaction" {
            assert_unchanged(&pool).await;
        }
        pooler.stop().await;
    }
}

/// Nothing of ours is left on the server connections that others get.
async fn assert_unchanged(pool: &PgPool) {
    for _ in 0..20 {
        let query = "SELECT current_setting('enable_seqscan') || current_setting('lock_timeout') ||
            (SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%outbox%')";
        let left: String = sqlx::Row::get(&sqlx::raw_sql(query).fetch_one(pool).await.unwrap(), 0);
        assert_eq!(left, "on00");
    }
}

#[tokio::test]
async fn direct_bus_works_beside_a_transaction_pooler() {
    let pooler = Private::start(&["pgbouncer", "transaction", "extra_float_digits"]).await;
    let database = Database::new().await;
    let pool = pool_at(&pooler.urls[0]);
    let storage = Postgres::new(pool.clone()).schema(&database.schema).direct(&url());
    let (cap, mut handled) = start(&database, &storage).await;
    let cap = cap.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60_i64 {
        let (cap, pool) = (cap.clone(), pool.clone());
        tasks.spawn(async move {
            if n % 2 == 0 {
                let mut tx = cap_postgres::begin(&cap, &pool).await.unwrap();
                cap.publish("book", &n).within(&mut tx).await.unwrap();
                // After a statement of the caller's the commit counts what is stored.
                sqlx::raw_sql("SELECT 1").execute(&mut *tx).await.unwrap();
                tx.commit().await.unwrap();
            } else {
                let mut tx = pool.begin().await.unwrap();
                cap.publish("book", &n).within(&mut tx).await.unwrap();
                tx.commit().await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    wait_for(&mut handled, 60).await;
    cap.shutdown().await.unwrap();
    assert_eq!(database.count("SELECT count(*) FROM {s}.ledger").await, 60);
    assert_unchanged(&pool).await;
    pooler.stop().await;
}

#[tokio::test]
async fn direct_url_that_cannot_be_read_is_an_error_without_it() {
    let database = Database::empty();
    for bad in ["nonsense hunter2", "mysql://a:hunter2@b/c", "postgres://user:hunter2@host:notaport/db"] {
        let error = cap_core::storage::Storage::check(&database.storage.clone().direct(bad)).unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Unusable);
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

/// What an application has to know of its own statements: see docs/operating.md.
#[tokio::test]
async fn named_statements_clash_in_transaction_mode() {
    let pooler = Private::start(&["pgbouncer", "transaction", "extra_float_digits"]).await;
    let options: PgConnectOptions = pooler.urls[0].parse().unwrap();
    let (mut one, mut two) = (options.connect().await.unwrap(), options.connect().await.unwrap());
    sqlx::query("SELECT 1").execute(&mut one).await.unwrap();
    assert!(
        sqlx::query("SELECT 2").execute(&mut two).await.is_err(),
        "if this works now, the page is to be changed"
    );
    let unnamed = sqlx::query("SELECT 2").persistent(false);
    unnamed.execute(&mut *sqlx::Connection::begin(&mut one).await.unwrap()).await.unwrap();
    pooler.stop().await;
}
