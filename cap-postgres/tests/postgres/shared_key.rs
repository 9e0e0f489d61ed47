//! The key that the nodes share, in a row of their table.

use std::time::Duration;

use cap_core::error::StorageErrorKind;
use cap_core::storage::{NodeRequest, SharedKey, Storage as _};

use crate::support::Database;

fn request(node: &str) -> NodeRequest {
    NodeRequest {
        node: node.into(),
        worker: None,
        lease: Duration::from_secs(30),
        succeeded_expire_after: Duration::from_hours(24),
    }
}

/// No statement about nodes takes the row of the key for one, those of earlier versions included.
#[tokio::test]
async fn shared_key_is_not_taken_for_a_node() {
    let database = Database::new().await;
    let storage = &database.storage;
    let key = SharedKey::from_stored(&[7; SharedKey::LENGTH]).unwrap();
    assert_eq!(storage.shared_key(&key).await.unwrap(), Some(key.clone()));
    assert_eq!(storage.join(&request("a")).await.unwrap(), 0);
    storage.leave("a", 0).await.unwrap();
    // As it is when every node has been gone for years.
    database
        .execute(
            "INSERT INTO {s}.nodes (worker, node, lease_until) SELECT w, 'n' || w, '2000-01-01'
             FROM generate_series(0, 1023) w",
        )
        .await;
    assert!((0..=1023).contains(&storage.join(&request("heir")).await.unwrap()));
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
