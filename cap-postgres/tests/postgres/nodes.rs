//! Worker ids.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cap_core::error::StorageErrorKind;
use cap_core::storage::{NodeRequest, SharedKey, Storage as _};

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
    database.execute("UPDATE {s}.nodes SET lease_until = lease_until - interval '1 hour'").await;
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
            "INSERT INTO {s}.nodes (worker, node, lease_until) SELECT w, 'n' || w, clock_timestamp() + interval '1 hour'
             FROM generate_series(0, 1022) w ON CONFLICT DO NOTHING",
        )
        .await;
    assert_eq!(storage.join(&request("last", None)).await.unwrap(), 1023);
    let error = storage.join(&request("too many", None)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    database.execute("UPDATE {s}.nodes SET lease_until = clock_timestamp() WHERE worker = 500").await;
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

/// The key that the nodes share is a row of their table: no statement about nodes takes it for one, and none of the version
/// before knows it.
#[tokio::test]
async fn the_shared_key_is_no_node() {
    let database = Database::new().await;
    let storage = &database.storage;
    let key = SharedKey::from_stored(&[7; SharedKey::LENGTH]).unwrap();
    assert_eq!(storage.shared_key(&key).await.unwrap(), Some(key.clone()));
    assert_eq!(storage.join(&request("a", None)).await.unwrap(), 0);
    storage.leave("a", 0).await.unwrap();
    // As it is when every node has been gone for years.
    database
        .execute(
            "INSERT INTO {s}.nodes (worker, node, lease_until) SELECT w, 'n' || w, '2000-01-01'
             FROM generate_series(0, 1023) w",
        )
        .await;
    assert!((0..=1023).contains(&storage.join(&request("heir", None)).await.unwrap()));
    let other = SharedKey::from_stored(&[8; SharedKey::LENGTH]).unwrap();
    assert_eq!(storage.shared_key(&other).await.unwrap(), Some(key));
    let shortest = "SELECT count(*) FROM {s}.shortest_retention WHERE shortest = interval '1 day'";
    assert_eq!(database.count(shortest).await, 1, "the views do not take it for one either");
    for broken in ["", "zz", "00", "not a key"] {
        database.execute(&format!("UPDATE {{s}}.nodes SET node = '{broken}' WHERE worker = -2")).await;
        let error = storage.shared_key(&other).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Unusable, "{error}");
        assert!(error.to_string().contains("row -2 of the table nodes is not a key"), "{error}");
    }
    database.execute("DELETE FROM {s}.nodes WHERE worker = -2").await;
    assert_eq!(storage.shared_key(&other).await.unwrap(), Some(other), "a new one");
}
