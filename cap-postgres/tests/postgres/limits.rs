//! A server at its limits: 54000 is raised by a trigger, as by a full queue of notifications (issue 8, row 4).

use std::time::Duration;

use cap_core::error::StorageErrorKind;
use cap_core::monitor::Row;
use cap_core::prelude::*;
use cap_core::storage::{RowOutcome, Status, Storage as _, WriteBatch};
use cap_postgres::PgTx;
use tokio::time::timeout;

use crate::support::{Database, first_lease, held_incoming, outgoing, owner};

const LIMIT: Duration = Duration::from_secs(60);

/// Has every insert into this table fail from now on.
async fn fail(database: &Database, table: &str, code: &str) {
    database
        .execute(&format!(
            "CREATE FUNCTION {{s}}.fail_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE EXCEPTION 'told to fail' USING ERRCODE = '{code}'; END $$;
             CREATE TRIGGER fail BEFORE INSERT ON {{s}}.{table} FOR EACH ROW EXECUTE FUNCTION {{s}}.fail_{table}()"
        ))
        .await;
}

async fn mend(database: &Database, table: &str) {
    database
        .execute(&format!("DROP TRIGGER fail ON {{s}}.{table}; DROP FUNCTION {{s}}.fail_{table}()"))
        .await;
}

#[tokio::test]
async fn limits_of_the_server_are_outages_and_no_fault_of_the_data() {
    let database = Database::new().await;
    for (n, code) in (1..).zip(["54000", "54001", "54023", "25P03", "25P04", "53400", "57P01", "58030"]) {
        fail(&database, "outbox", code).await;
        let batch = WriteBatch { outgoing: vec![outgoing(n)], ..WriteBatch::default() };
        let error = database.storage.write(&owner("a"), &batch).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Unavailable, "{error}");
        mend(&database, "outbox").await;
        database.storage.write(&owner("a"), &batch).await.unwrap();
    }
}

/// A rejected batch is rolled back at once: its locks would be in the way of all others.
#[tokio::test]
async fn failed_write_leaves_no_locks_behind() {
    let database = Database::new().await;
    database.receive(vec![held_incoming(1), held_incoming(2)]).await;
    fail(&database, "attempts", "54000").await;
    let retry = |id| cap_core::storage::RowCompletion {
        lease: first_lease(id),
        outcome: RowOutcome::Retry { after: Duration::ZERO, hold: false, error: "own".to_owned() },
        publishes: Vec::new(),
    };
    let batch = WriteBatch {
        completed_incoming: vec![retry(1), retry(2)],
        outgoing: vec![outgoing(1)],
        ..WriteBatch::default()
    };
    database.storage.write(&owner("a"), &batch).await.unwrap_err();
    mend(&database, "attempts").await;
    let update = "UPDATE {s}.inbox_state SET due = now()";
    timeout(Duration::from_secs(10), database.execute(update)).await.unwrap();
}

async fn row(cap: &Cap, id: &MessageId, what: impl Fn(&Row) -> bool) -> Row {
    let wait = async {
        loop {
            let mut rows = cap.messages().find(id.as_str()).await.unwrap();
            if let Some(row) = rows.pop().filter(&what) {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, wait).await.unwrap()
}

/// Not an outage: a handler that always takes so long would be run for ever.
#[tokio::test]
async fn transaction_that_idles_too_long_is_a_failed_attempt() {
    async fn idle(_n: i64, mut tx: PgTx) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("SET LOCAL idle_in_transaction_session_timeout = '50ms'").execute(&mut *tx).await?;
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await?;
        let pool = sqlx::PgPool::connect(&crate::support::url()).await?;
        let there = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        while sqlx::query_scalar::<_, i64>(there).bind(pid).fetch_one(&pool).await? > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
    let database = Database::new().await;
    let cap = Cap::builder()
        .handlers(Handlers::none())
        .storage(database.storage.clone())
        .transport(MemoryTransport::new())
        .configure(|options| options.default_group = "books".into())
        .subscribe(Subscribe::to("book").retry(RetryPolicy::fixed(Duration::from_secs(600), 50)), idle)
        .start()
        .await
        .unwrap();
    let id = cap.publish("book", &0_i64).await.unwrap();
    let failed = row(&cap, &id, |row| row.status == Status::Retrying).await;
    assert_eq!(failed.attempts, 1);
    assert!(failed.last_error.unwrap().contains("25P03"));
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn handler_keeps_its_attempts_and_its_error_over_an_outage() {
    let database = Database::new().await;
    let (ran, mut runs) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |n: i64| {
        let _ = ran.send(n);
        async move { if n == 0 { Err("own error") } else { Ok(()) } }
    };
    let cap = Cap::builder()
        .handlers(Handlers::none())
        .storage(database.storage.clone())
        .transport(MemoryTransport::new())
        .configure(|options| {
            options.default_group = "books".into();
            options.group_concurrency = 4;
        })
        .subscribe(Subscribe::to("book").retry(RetryPolicy::fixed(Duration::from_secs(600), 50)), handler)
        .start()
        .await
        .unwrap();
    fail(&database, "attempts", "54000").await;
    let failing = cap.publish("book", &0_i64).await.unwrap();
    assert_eq!(timeout(LIMIT, runs.recv()).await.unwrap(), Some(0));
    for n in 1..4_i64 {
        let id = cap.publish("book", &n).await.unwrap();
        row(&cap, &id, |row| row.status == Status::Succeeded).await;
    }
    let waiting = row(&cap, &failing, |_| true).await;
    assert_eq!((waiting.status, waiting.attempts), (Status::Scheduled, 0), "{:?}", waiting.last_error);
    mend(&database, "attempts").await;
    let failed = row(&cap, &failing, |row| row.status != Status::Scheduled).await;
    assert_eq!((failed.status, failed.attempts), (Status::Retrying, 1));
    assert_eq!(failed.last_error.as_deref(), Some("own error"));
    cap.shutdown().await.unwrap();
}
