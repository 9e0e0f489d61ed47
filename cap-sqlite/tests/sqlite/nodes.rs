//! Worker ids.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cap_core::error::StorageErrorKind;
use cap_core::storage::{NodeRequest, Storage as _};

use crate::support::Database;

fn request(node: &str, worker: Option<u16>) -> NodeRequest {
    NodeRequest {
        node: node.into(),
        worker,
        lease: Duration::from_secs(30),
        succeeded_expire_after: Duration::from_hours(24),
    }
}

#[tokio::test]
async fn a_requested_number_is_given_to_one_living_node() {
    let database = Database::new().await;
    let storage = &database.storage;
    assert_eq!(storage.join(&request("a", Some(7))).await.unwrap(), 7);
    assert_eq!(storage.join(&request("a", Some(7))).await.unwrap(), 7, "the same node may come again");
    let error = storage.join(&request("b", Some(7))).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unusable);
    assert!(error.to_string().contains("worker id 7 belongs to the node a"), "{error}");
    assert!(!storage.keep_alive(&request("b", Some(7)), 7).await.unwrap());
    database.execute("UPDATE cap_nodes SET lease_until = lease_until - 3600000000").await;
    assert_eq!(storage.join(&request("b", Some(7))).await.unwrap(), 7, "the other is dead");
    assert!(!storage.keep_alive(&request("a", Some(7)), 7).await.unwrap());
    assert!(storage.keep_alive(&request("b", Some(7)), 7).await.unwrap());
    let error = storage.join(&request("c", Some(1024))).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unusable, "{error}");
}

#[tokio::test]
async fn a_number_that_was_left_is_free() {
    let database = Database::new().await;
    let storage = &database.storage;
    storage.join(&request("a", Some(3))).await.unwrap();
    storage.leave("b", 3).await.unwrap();
    assert!(storage.join(&request("b", Some(3))).await.is_err(), "only its holder can leave it");
    storage.leave("a", 3).await.unwrap();
    assert_eq!(storage.join(&request("b", Some(3))).await.unwrap(), 3);
}

#[tokio::test]
async fn all_numbers_can_be_drawn_and_not_one_more() {
    let database = Database::new().await;
    let storage = &database.storage;
    let first = storage.join(&request("first", None)).await.unwrap();
    assert_eq!(storage.join(&request("first", None)).await.unwrap(), first, "its own again");
    database
        .execute(
            "WITH RECURSIVE n(w) AS (SELECT 0 UNION ALL SELECT w + 1 FROM n WHERE w < 1022)
             INSERT OR IGNORE INTO cap_nodes (worker, node, lease_until) SELECT w, 'n' || w, (unixepoch() + 3600) * 1000000 FROM n",
        )
        .await;
    assert_eq!(storage.join(&request("last", None)).await.unwrap(), 1023);
    let error = storage.join(&request("too many", None)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    database.execute("UPDATE cap_nodes SET lease_until = unixepoch() * 1000000 WHERE worker = 500").await;
    assert_eq!(storage.join(&request("heir", None)).await.unwrap(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_draw_at_once_draw_different_numbers() {
    let database = Arc::new(Database::new().await);
    let tasks: Vec<_> = (0..24)
        .map(|node: usize| {
            let database = Arc::clone(&database);
            tokio::spawn(
                async move { database.storage.join(&request(&node.to_string(), None)).await.unwrap() },
            )
        })
        .collect();
    let mut numbers = HashSet::new();
    for task in tasks {
        assert!(numbers.insert(task.await.unwrap()));
    }
}
