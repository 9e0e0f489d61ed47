//! What a handler's transaction begins with, what the handler may set in it, and what it ends with.

use std::time::Duration;

use cap_core::BoxError;
use cap_core::monitor::Row;
use cap_core::prelude::*;
use cap_core::storage::{Status, Storage as _};
use cap_postgres::PgTx;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{Database, url};

/// What is done on another connection meanwhile.
const ELSEWHERE: &str = "elsewhere: ";

/// A beat of the bus's heart, as far as the row is concerned.
const BEAT: &str = "elsewhere: UPDATE {s}.inbox_state SET due = due + interval '1 second'";

async fn work(steps: Vec<String>, State(pool): State<PgPool>, mut tx: PgTx) -> Result<(), BoxError> {
    for step in steps {
        let elsewhere = step.strip_prefix(ELSEWHERE);
        let sql = sqlx::raw_sql(AssertSqlSafe(elsewhere.unwrap_or(&step).to_owned()));
        match elsewhere {
            Some(_) => sql.execute(&*pool).await?,
            None => sql.execute(&mut *tx).await?,
        };
    }
    Ok(())
}

/// A schema whose application connects with these settings.
async fn database(settings: &[(&str, &str)]) -> Database {
    let options: PgConnectOptions = url().parse().unwrap();
    let options = options.options(settings.iter().copied());
    let pool = PgPoolOptions::new().max_connections(4).connect_lazy_with(options);
    let database = Database::on(pool);
    database.storage.initialize().await.unwrap();
    database
}

async fn start(database: &Database) -> Cap {
    let once = Subscribe::to("work").retry(RetryPolicy::never()).timeout(Duration::from_secs(10));
    database.bus().state(database.pool.clone()).subscribe(once, work).start().await.unwrap()
}

async fn found(cap: &Cap, id: &str, is_it: impl Fn(&Row) -> bool) -> Row {
    let found = async {
        loop {
            let rows = cap.messages().find(id).await.unwrap();
            if let Some(row) = rows.into_iter().find(&is_it) {
                return row;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.unwrap()
}

/// Has the steps done by the handler, and says how its message ended.
async fn ended(database: &Database, cap: &Cap, steps: &[&str]) -> Row {
    let steps: Vec<String> = steps.iter().map(|step| database.sql(step).0).collect();
    let id = cap.publish("work", &steps).await.unwrap();
    found(cap, id.as_str(), |row| row.owner.is_none() && row.status != Status::Scheduled).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_databases_isolation_level_is_not_the_handlers() {
    let database = database(&[("default_transaction_isolation", "serializable")]).await;
    database.execute("CREATE TABLE {s}.seen (what text)").await;
    let cap = start(&database).await;
    let look = "INSERT INTO {s}.seen SELECT concat_ws(' ', current_setting('transaction_isolation'),
        current_setting('tcp_keepalives_idle'), current_setting('tcp_keepalives_interval'),
        current_setting('tcp_keepalives_count'))";
    let row = ended(&database, &cap, &[look, BEAT]).await;
    assert_eq!((row.status, row.attempts), (Status::Succeeded, 0), "{row:?}");
    assert_eq!(database.text("SELECT what FROM {s}.seen").await, "read committed 30 10 3");
    cap.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clash_at_own_isolation_level_is_a_failed_attempt() {
    let database = database(&[]).await;
    let cap = start(&database).await;
    let steps = ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1", BEAT];
    let row = ended(&database, &cap, &steps).await;
    assert_eq!((row.status, row.attempts), (Status::Failed, 1), "{row:?}");
    assert!(row.last_error.unwrap().contains("isolation level"));
    // Without a clash it may have the level that it likes.
    let row = ended(&database, &cap, &steps[..2]).await;
    assert_eq!((row.status, row.attempts), (Status::Succeeded, 0), "{row:?}");
    cap.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_handler_do_not_hinder_completion() {
    let own = |idle| [("idle_in_transaction_session_timeout", idle)];
    for (settings, idle) in [(&own("0")[..], "1min"), (&own("5min"), "1min"), (&own("20s"), "20s")] {
        let database = database(settings).await;
        // Sees what is set at the commit.
        let trigger = "
            CREATE TABLE {s}.ledger (number bigint);
            CREATE TABLE {s}.seen (what text);
            CREATE FUNCTION {s}.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO {s}.seen SELECT concat_ws(' ', current_user = session_user,
                    current_setting('idle_in_transaction_session_timeout'));
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER look AFTER INSERT ON {s}.ledger DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION {s}.look()";
        database.execute(trigger).await;
        let cap = start(&database).await;
        // A role that everybody has, and that may do nothing here.
        let steps = ["INSERT INTO {s}.ledger VALUES (1)", "SET LOCAL ROLE pg_monitor"];
        let row = ended(&database, &cap, &steps).await;
        assert_eq!((row.status, row.attempts), (Status::Succeeded, 0), "{row:?}");
        assert_eq!(database.text("SELECT what FROM {s}.seen").await, format!("t {idle}"));
        cap.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_a_connection_costs_no_attempt() {
    let database = database(&[]).await;
    let brief = Subscribe::to("work").retry(RetryPolicy::never()).timeout(Duration::from_secs(1));
    let bus = database.bus().state(database.pool.clone()).subscribe(brief, work);
    let cap = bus.start().await.unwrap();
    let mut used = Vec::new();
    for _ in 0..4 {
        used.push(database.pool.acquire().await.unwrap());
    }
    let id = cap.publish("work", &Vec::<String>::new()).await.unwrap();
    let row = found(&cap, id.as_str(), |row| row.owner.is_none()).await;
    assert_eq!((row.status, row.attempts), (Status::Scheduled, 0), "{row:?}");
    drop(used);
    found(&cap, id.as_str(), |row| row.status == Status::Succeeded).await;
    cap.shutdown().await.unwrap();
}
