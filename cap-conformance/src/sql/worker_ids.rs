//! Worker ids: each belongs to one live node.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cap_adapter::error::StorageErrorKind;
use cap_adapter::storage::{NodeRequest, Storage as _};

use super::SqlFixture;
use super::tables::Tables;

fn request(node: &str, worker: Option<u16>) -> NodeRequest {
    NodeRequest {
        node: node.into(),
        worker,
        lease: Duration::from_secs(30),
        succeeded_expire_after: Duration::from_hours(24),
    }
}

/// A requested worker id is given to one live node.
pub async fn requested_worker_id_goes_to_one_live_node<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let storage = &*tables.storage;
    assert_eq!(storage.join(&request("a", Some(7))).await.unwrap(), 7);
    assert_eq!(storage.join(&request("a", Some(7))).await.unwrap(), 7, "the same node may come again");
    let error = storage.join(&request("b", Some(7))).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unusable);
    assert!(error.to_string().contains("worker id 7 belongs to the node a"), "{error}");
    assert!(!storage.keep_alive(&request("b", Some(7)), 7).await.unwrap());
    tables.execute("UPDATE {t}nodes SET lease_until = lease_until - {hour}").await;
    assert_eq!(storage.join(&request("b", Some(7))).await.unwrap(), 7, "the other is dead");
    assert!(!storage.keep_alive(&request("a", Some(7)), 7).await.unwrap());
    assert!(storage.keep_alive(&request("b", Some(7)), 7).await.unwrap());
    let error = storage.join(&request("c", Some(1024))).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unusable, "{error}");
}

/// A worker id that its node has released is given to another.
pub async fn released_worker_id_is_free<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let storage = &*tables.storage;
    storage.join(&request("a", Some(3))).await.unwrap();
    storage.leave("b", 3).await.unwrap();
    assert!(storage.join(&request("b", Some(3))).await.is_err(), "only its holder can leave it");
    storage.leave("a", 3).await.unwrap();
    assert_eq!(storage.join(&request("b", Some(3))).await.unwrap(), 3);
}

/// All worker ids can be given, and one more cannot; that of a dead node can.
pub async fn all_worker_ids_can_be_drawn_and_no_more<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let storage = &*tables.storage;
    let first = storage.join(&request("first", None)).await.unwrap();
    assert_eq!(storage.join(&request("first", None)).await.unwrap(), first, "its own again");
    tables
        .execute(
            "WITH RECURSIVE n(w) AS (SELECT 0 UNION ALL SELECT w + 1 FROM n WHERE w < 1022)
             INSERT INTO {t}nodes (worker, node, lease_until) SELECT w, 'n' || w, {now} + {hour} FROM n WHERE true
             ON CONFLICT DO NOTHING",
        )
        .await;
    assert_eq!(storage.join(&request("last", None)).await.unwrap(), 1023);
    let error = storage.join(&request("too many", None)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    tables.execute("UPDATE {t}nodes SET lease_until = {now} - {minute} WHERE worker = 500").await;
    assert_eq!(storage.join(&request("heir", None)).await.unwrap(), 500);
}

/// Nodes that join at the same time get different worker ids.
pub async fn nodes_that_join_at_once_get_different_ids<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let tasks: Vec<_> = (0..24)
        .map(|node: usize| {
            let storage = Arc::clone(&tables.storage);
            tokio::spawn(async move { storage.join(&request(&node.to_string(), None)).await.unwrap() })
        })
        .collect();
    let mut numbers = HashSet::new();
    for task in tasks {
        assert!(numbers.insert(task.await.unwrap()));
    }
}
