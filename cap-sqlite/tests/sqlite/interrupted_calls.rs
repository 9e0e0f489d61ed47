//! Calls whose futures are dropped.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cap_core::storage::{NodeRequest, Side, Storage as _};

use crate::support::{Database, ids, outgoing};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_call_leaves_the_storage_usable() {
    let database = Arc::new(Database::new().await);
    database.publish((1..=50).map(outgoing).collect()).await;
    let blocker = database.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    // One waits for the lock, the others for their turn: none may be left in a call that was dropped.
    let claims: Vec<_> = (0..3)
        .map(|_| {
            let database = Arc::clone(&database);
            tokio::spawn(async move { database.claims(Side::Outbox, 5).await })
        })
        .collect();
    for claim in claims {
        tokio::task::yield_now().await;
        claim.abort();
        assert!(claim.await.unwrap_err().is_cancelled());
    }
    blocker.rollback().await.unwrap();
    let request = NodeRequest {
        node: "a".into(),
        worker: None,
        lease: Duration::from_secs(30),
        succeeded_expire_after: Duration::from_hours(24),
    };
    database.storage.join(&request).await.unwrap();
    let mut seen = HashSet::new();
    while seen.len() < 50 {
        seen.extend(ids(&database.claim(Side::Outbox).await));
        // What the interrupted calls have claimed is claimed again when their leases have expired.
        database.let_time_pass().await;
    }
}
