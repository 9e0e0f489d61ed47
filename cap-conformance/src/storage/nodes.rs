//! Worker ids: no two nodes that live ever have the same.

use std::collections::BTreeSet;
use std::time::Duration;

use cap_adapter::error::StorageErrorKind;
use cap_adapter::storage::{NodeRequest, SharedKey, Storage};
use futures_util::future::join_all;

use super::StorageFixture;
use super::node::{LONG, Node, SHORT};
use crate::patience::eventually;

fn request(node: &str, worker: Option<u16>, lease: Duration) -> NodeRequest {
    NodeRequest { node: node.into(), worker, lease, succeeded_expire_after: Duration::from_hours(24) }
}

/// Twenty nodes start at the same moment.
pub async fn twenty_nodes_have_twenty_worker_ids<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let names: Vec<String> = (0..20).map(|number| format!("node-{number}")).collect();
    let joins = names.iter().enumerate().map(async |(at, name)| {
        let store = if at % 2 == 0 { &a.store } else { &b.store };
        store.join(&request(name, None, LONG)).await.expect("a number is free")
    });
    let numbers: BTreeSet<u16> = join_all(joins).await.into_iter().collect();
    assert_eq!(numbers.len(), 20, "{numbers:?}");
    assert!(numbers.iter().all(|number| *number <= 1023), "{numbers:?}");
}

/// A node that was configured with a number gets it, also when others have drawn theirs.
pub async fn requested_worker_id_is_given<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for requested in [0, 7, 1023] {
        let name = format!("node-{requested}");
        assert_eq!(node.store.join(&request(&name, Some(requested), LONG)).await.unwrap(), requested);
    }
    let drawn = node.store.join(&request("other", None, LONG)).await.unwrap();
    assert!(![0, 7, 1023].contains(&drawn), "{drawn} is taken");
}

/// Two nodes configured alike are a mistake that is found at the start, and that the error explains.
pub async fn requested_worker_id_that_is_taken_is_refused<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    assert_eq!(a.store.join(&request("a", Some(5), LONG)).await.unwrap(), 5);
    let error = b.store.join(&request("b", Some(5), LONG)).await.expect_err("it belongs to a");
    assert_eq!(error.kind(), StorageErrorKind::Unusable, "{error}");
    assert!(error.to_string().contains('5'), "the error names the number: {error}");
    assert!(a.store.keep_alive(&request("a", Some(5), LONG), 5).await.unwrap(), "a is not disturbed");
    assert_eq!(a.store.join(&request("a", Some(5), LONG)).await.unwrap(), 5, "a may say it again");
}

/// Ids have ten bits for the number.
pub async fn worker_id_out_of_range_is_refused<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let error = node.store.join(&request("a", Some(1024), LONG)).await.expect_err("1023 is the last");
    assert_eq!(error.kind(), StorageErrorKind::Unusable, "{error}");
}

/// A node that starts again under its name, before its lease has ended, takes no second number from the others.
pub async fn node_that_joins_again_keeps_a_worker_id<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let first = node.store.join(&request("a", None, LONG)).await.unwrap();
    let other = node.store.join(&request("b", None, LONG)).await.unwrap();
    let again = node.store.join(&request("a", None, LONG)).await.unwrap();
    assert_ne!(again, other);
    assert!(node.store.keep_alive(&request("a", None, LONG), again).await.unwrap());
    assert_eq!(node.store.join(&request("a", Some(first), LONG)).await.unwrap(), first);
}

/// The worker id of a node that no longer renews it goes to another node, and the first one learns that it has lost it.
pub async fn worker_id_of_a_dead_node_is_free<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    assert_eq!(a.store.join(&request("a", Some(9), SHORT)).await.unwrap(), 9);
    eventually("the number to be free", async || match b.store.join(&request("b", Some(9), LONG)).await {
        Ok(number) => (number == 9).then_some(()),
        Err(error) => {
            assert_eq!(error.kind(), StorageErrorKind::Unusable, "{error}");
            None
        }
    })
    .await;
    assert!(!a.store.keep_alive(&request("a", Some(9), LONG), 9).await.unwrap(), "it is lost");
    assert!(b.store.keep_alive(&request("b", Some(9), LONG), 9).await.unwrap());
    a.store.leave("a", 9).await.expect("leaving what is lost is no error");
    assert!(b.store.keep_alive(&request("b", Some(9), LONG), 9).await.unwrap(), "and frees nothing");
}

/// A node that leaves makes room at once; its own claim ends with it.
pub async fn worker_id_left_by_its_node_is_free<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    assert_eq!(a.store.join(&request("a", Some(3), LONG)).await.unwrap(), 3);
    a.store.leave("a", 3).await.expect("the worker id is released");
    assert!(!a.store.keep_alive(&request("a", Some(3), LONG), 3).await.unwrap());
    assert_eq!(b.store.join(&request("b", Some(3), LONG)).await.unwrap(), 3);
}

/// Nodes that start at the same moment, each with a key of its own making, use one; so does a node that starts later, as
/// after a restart. A storage that has no place for a key says so each time.
pub async fn all_nodes_share_one_key<F: StorageFixture>(fixture: &F) {
    let fresh =
        |byte: u8| SharedKey::from_stored(&[byte; SharedKey::LENGTH]).expect("it has the length of a key");
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let keys = (0..20).map(async |at| {
        let store = if at % 2 == 0 { &a.store } else { &b.store };
        store.shared_key(&fresh(at)).await.expect("the storage is there")
    });
    let keys = join_all(keys).await;
    let first = keys[0].clone();
    assert!(keys.iter().all(|key| *key == first), "they differ");
    drop((a, b));
    let later = Node::open(fixture, "later", LONG).await;
    assert_eq!(later.store.shared_key(&fresh(99)).await.unwrap(), first, "it is kept");
    if let Some(key) = first {
        assert!((0..20).any(|at| key == fresh(at)), "it is one that a node has made");
        let number = later.store.join(&request("later", None, LONG)).await.unwrap();
        later.store.leave("later", number).await.unwrap();
        assert_eq!(later.store.shared_key(&fresh(99)).await.unwrap(), Some(key), "nodes come and go");
    }
}
