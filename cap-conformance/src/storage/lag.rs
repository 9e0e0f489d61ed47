//! The lag: for how long the oldest waiting message of the outbox and of each group has been due.

use std::time::{Duration, Instant};

use cap_adapter::monitor::Monitor;
use cap_adapter::storage::{NewIncoming, Owner, Side, Storage};

use super::StorageFixture;
use super::node::{GROUP, LONG, Node, SIDES, delayed, failed, first_lease, ids, incoming, retry};
use crate::patience::eventually;

/// Long enough to tell two messages apart, and rounded times.
const GAP: Duration = Duration::from_millis(200);

/// Storages may keep times in whole milliseconds.
const ROUNDED: Duration = Duration::from_millis(20);

async fn oldest<S: Storage + Monitor>(node: &Node<S>, side: Side, group: &str) -> Option<Duration> {
    let lags = node.store.lags().await.expect("the lags are read").expect("the storage can tell");
    let mut found = lags.iter().filter(|lag| lag.side == side && lag.group == group);
    let lag = found.next().map(|lag| lag.oldest);
    assert!(found.next().is_none(), "one lag for each group: {lags:?}");
    lag
}

/// What a node works on, what is due later and what is finished has no lag.
pub async fn only_waiting_messages_have_a_lag<F: StorageFixture>(fixture: &F) {
    if !fixture.reports_lags() {
        return;
    }
    let node = Node::open(fixture, "a", LONG).await;
    assert_eq!(node.store.lags().await.unwrap().unwrap(), []);
    for side in SIDES {
        node.insert(side, 1..=3, true).await;
        assert!(node.complete(side, first_lease(2), failed(false)).await);
        assert!(node.complete(side, first_lease(3), retry(LONG, "later")).await);
    }
    node.publish(delayed(4, LONG)).await;
    assert_eq!(node.store.lags().await.unwrap().unwrap(), []);
    node.insert(Side::Outbox, [5], false).await;
    assert!(oldest(&node, Side::Outbox, "").await.is_some());
    assert_eq!(oldest(&node, Side::Inbox, GROUP).await, None);
}

/// The lag is that of the oldest message, and falls when a node claims it.
pub async fn lag_is_the_age_of_the_oldest_message<F: StorageFixture>(fixture: &F) {
    if !fixture.reports_lags() {
        return;
    }
    let node = Node::open(fixture, "a", LONG).await;
    for (side, group) in [(Side::Outbox, ""), (Side::Inbox, GROUP)] {
        let first_stored = Instant::now();
        node.insert(side, [1], false).await;
        let grown = eventually("the lag to grow", async || {
            oldest(&node, side, group).await.filter(|age| *age >= GAP)
        })
        .await;
        assert!(grown <= first_stored.elapsed() + ROUNDED, "{grown:?}");
        let second_stored = Instant::now();
        node.insert(side, [2], false).await;
        assert!(oldest(&node, side, group).await >= Some(grown), "the older one counts");
        assert_eq!(ids(&node.claim(side, 1).await.rows), [1]);
        let fallen = oldest(&node, side, group).await.expect("the second one waits");
        assert!(fallen <= second_stored.elapsed() + ROUNDED, "{fallen:?} is the age of the first one");
    }
}

/// Each group has a lag of its own, over all bus versions.
pub async fn each_group_has_its_own_lag<F: StorageFixture>(fixture: &F) {
    if !fixture.reports_lags() {
        return;
    }
    let node = Node::open(fixture, "a", LONG).await;
    let of = |id, group: &str| NewIncoming { group: group.into(), ..incoming(id, false) };
    node.receive(of(1, "a")).await;
    node.publish(delayed(1, Duration::ZERO)).await;
    eventually("the lag to grow", async || oldest(&node, Side::Inbox, "a").await.filter(|age| *age >= GAP))
        .await;
    let stored = Instant::now();
    node.receive(of(2, "b")).await;
    let newer =
        Node { store: fixture.open().await, owner: Owner { version: "v2".into(), ..node.owner.clone() } };
    newer.receive(of(3, "a")).await;
    newer.receive(of(4, "c")).await;
    newer.publish(delayed(2, Duration::ZERO)).await;
    for group in ["b", "c"] {
        let age = oldest(&node, Side::Inbox, group).await.expect("it waits");
        assert!(age <= stored.elapsed() + ROUNDED, "{group} {age:?}");
    }
    assert!(oldest(&newer, Side::Inbox, "a").await >= Some(GAP), "the older one is of another version");
    assert!(oldest(&newer, Side::Outbox, "").await >= Some(GAP), "the older one is of another version");
}
