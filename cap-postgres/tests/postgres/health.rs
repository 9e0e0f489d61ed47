//! What health asks the server: issue 8, row 5.

use std::time::Duration;

use cap_core::memory::MemoryTransport;
use cap_core::{Cap, CapOptions, Handlers};
use sqlx::Connection as _;
use tokio::time::timeout;

use crate::support::{Database, url};

/// How many of our counts the server is at.
async fn counts_at_the_server(database: &Database) -> i64 {
    let counts = "SELECT count(*) FROM pg_stat_activity
        WHERE state = 'active' AND pid <> pg_backend_pid() AND position('{s}' IN query) > 0
            AND position('count(*)' IN query) > 0";
    database.count(&counts.replace("{s}", &database.schema)).await
}

/// Looks again and again until it is so.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(Duration::from_secs(20), looking).await.is_ok(), "{what}: it never was so");
}

/// A count that takes long, as of millions of rows on a busy disk, is no trouble of the storage; it is ended at the server,
/// and however many ask, and go away again, the server has one to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_count_is_unknown_and_the_storage_stays_up() {
    let database = Database::empty();
    let mut options = CapOptions::default();
    options.lease = Duration::from_mins(5);
    let cap = Cap::builder()
        .options(options)
        .storage(database.storage.clone())
        .transport(MemoryTransport::new())
        .handlers(Handlers::none())
        .start()
        .await
        .unwrap();
    assert_eq!(cap.health().await.waiting, Some(Vec::new()));
    let mut other = sqlx::PgConnection::connect(&url()).await.unwrap();
    let mut lock = other.begin().await.unwrap();
    sqlx::raw_sql(database.sql("LOCK TABLE {s}.inbox_state IN ACCESS EXCLUSIVE MODE"))
        .execute(&mut *lock)
        .await
        .unwrap();
    // Until the answer from before the lock is too old.
    eventually("the count is unknown", async || cap.health().await.waiting.is_none()).await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..20 {
        let cap = cap.clone();
        asking.spawn(async move {
            if number % 2 == 0 {
                // One who goes away half-way.
                let _ = timeout(Duration::from_millis(5 * number), cap.health()).await;
                return true;
            }
            let health = cap.health().await;
            health.waiting.is_none() && health.storage.up && health.is_healthy()
        });
    }
    let mut most = 0;
    while !asking.is_empty() {
        most = most.max(counts_at_the_server(&database).await);
        while let Some(asked) = asking.try_join_next() {
            assert!(asked.unwrap(), "a slow count is not \"storage down\"");
        }
    }
    assert!(most <= 1, "{most} counts at the same time");
    // The server ends what nobody waits for.
    eventually("the count has ended", async || counts_at_the_server(&database).await == 0).await;
    lock.rollback().await.unwrap();
    eventually("the count is known", async || cap.health().await.waiting.is_some()).await;
    cap.shutdown().await.unwrap();
}
