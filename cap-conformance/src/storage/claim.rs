//! Claiming: who gets what, in which order, and when there is more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cap_adapter::storage::{NewIncoming, Side, Status};

use super::StorageFixture;
use super::node::{
    GROUP, LONG, NOTHING, Node, SHORT, SIDES, delayed, failed, first_lease, ids, incoming, message, outgoing,
    retry,
};

/// What a node inserted for itself is not for the others, nor for its own claims.
pub async fn leased_rows_are_not_claimed<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1, 2], true).await;
        assert_eq!(ids(&b.claim(side, 10).await.rows), NOTHING);
        assert_eq!(ids(&a.claim(side, 10).await.rows), NOTHING);
        let row = b.row(side, 1).await;
        assert_eq!((row.status, row.owner.as_deref()), (Status::Scheduled, Some("a")));
    }
}

/// When the lease ends, another node takes over: under a lease with the next epoch, and with the same message.
pub async fn a_dead_nodes_rows_fall_to_another<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", SHORT).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1, 2], true).await;
        let rows = b.claim_in_time(side, 2).await;
        assert_eq!(ids(&rows), [1, 2]);
        assert!(rows.iter().all(|row| row.lease.epoch == 2), "{rows:?}");
        assert!(rows.iter().all(|row| row.attempts == 0), "dying counts no attempt");
        assert_eq!(rows[1].message, message("m2", "order.created"));
        assert_eq!(b.row(side, 1).await.owner.as_deref(), Some("b"));
    }
}

/// Rows that nobody holds go to whoever comes first, once.
pub async fn rows_without_a_lease_are_claimed_by_any_node<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1, 2], false).await;
        let rows = b.claim(side, 10).await.rows;
        assert_eq!(ids(&rows), [1, 2]);
        assert!(rows.iter().all(|row| row.lease.epoch == 1));
        let group = if side == Side::Inbox { GROUP } else { "" };
        assert!(rows.iter().all(|row| *row.group == *group && row.notice.is_none()));
        assert_eq!(ids(&a.claim(side, 10).await.rows), NOTHING);
    }
}

/// Neither row ids nor the order in a batch decide, but since when a row is due.
pub async fn the_longest_due_comes_first<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        for id in [5, 1, 9, 3] {
            node.insert(side, [id], false).await;
        }
        assert_eq!(ids(&node.claim(side, 3).await.rows), [5, 1, 9]);
        assert_eq!(ids(&node.claim(side, 3).await.rows), [3]);
    }
}

/// Whoever gets as much as it asked for must know that there is more.
pub async fn the_limit_leaves_the_rest_due<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, 1..=5, false).await;
        let claims = node.claim(side, 0).await;
        assert_eq!((claims.rows.len(), claims.next_due), (0, Some(Duration::ZERO)));
        let claims = node.claim(side, 2).await;
        assert_eq!((ids(&claims.rows), claims.next_due), (vec![1, 2], Some(Duration::ZERO)));
        let claims = node.claim(side, 3).await;
        assert_eq!(ids(&claims.rows), [3, 4, 5]);
        assert_ne!(claims.next_due, Some(Duration::ZERO));
    }
}

/// Whoever has little memory left gets what fits into it, in order, and at least one row.
pub async fn bytes_limit_a_claim_but_not_its_first_row<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        for (id, size) in [(1, 4000), (2, 600), (3, 401), (4, 0), (5, 5000), (6, 1)] {
            node.insert_sized(side, id, size).await;
        }
        let claim = async |bytes| {
            let claims = node.claim_within(side, 10, bytes).await;
            (ids(&claims.rows), claims.next_due == Some(Duration::ZERO))
        };
        assert_eq!(claim(1000).await, (vec![1], true), "it is larger than what is left, and first");
        assert_eq!(claim(1000).await, (vec![2], true), "the next one would be a byte too large");
        assert_eq!(claim(401).await, (vec![3, 4], true), "a body without a byte fits");
        assert_eq!(claim(0).await, (vec![5], true));
        assert_eq!(claim(1).await, (vec![6], false));
    }
}

/// None when there is nothing; else the time to the first delay, pause or lease that ends.
pub async fn next_due_says_when_to_come_again<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let within = |due: Option<Duration>, limit: Duration| {
        let due = due.expect("something is to come");
        assert!(due > limit.mul_f32(0.9) && due <= limit, "{due:?} of {limit:?}");
    };
    for side in SIDES {
        b.expect_nothing_due(side).await;
        a.insert(side, [1], true).await;
        within(b.claim(side, 10).await.next_due, LONG);
        assert!(a.complete(side, first_lease(1), retry(LONG / 2, "no")).await);
        within(b.claim(side, 10).await.next_due, LONG / 2);
    }
    a.publish(delayed(2, LONG / 4)).await;
    within(b.claim(Side::Outbox, 10).await.next_due, LONG / 4);
    let elsewhere = b.claim_groups(Side::Inbox, &["another"], 10).await;
    assert_eq!(elsewhere.next_due, None, "rows of other groups do not matter");
}

/// A delayed message is not published early, and is shown as what it is.
pub async fn delayed_rows_wait_for_their_time<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    node.publish(delayed(1, LONG)).await;
    node.publish(outgoing(2, false)).await;
    assert_eq!(ids(&node.claim(Side::Outbox, 10).await.rows), [2]);
    let row = node.row(Side::Outbox, 1).await;
    assert_eq!((row.status, row.owner), (Status::Delayed, None));
    let delay = row.due.expect("it has a time").duration_since(row.added).unwrap();
    assert!(delay > LONG.mul_f32(0.99) && delay < LONG.mul_f32(1.01), "{delay:?}");
}

/// A delay ends by the storage's clock, for any node; from then on the message is not a delayed one any more.
pub async fn a_delayed_row_comes_when_it_is_due<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let delay = Duration::from_millis(700);
    a.publish(delayed(1, delay)).await;
    let rows = b.claim_in_time(Side::Outbox, 1).await;
    assert_eq!(ids(&rows), [1]);
    assert!(rows[0].age >= delay, "{:?} is early", rows[0].age);
    assert_eq!(rows[0].lease.epoch, 1);
    assert_ne!(a.row(Side::Outbox, 1).await.status, Status::Delayed);
}

/// Fleets of two versions share a storage and see nothing of each other's work.
pub async fn versions_do_not_meet<F: StorageFixture>(fixture: &F) {
    let old = Node::open(fixture, "a", LONG).await;
    let mut new = Node::open(fixture, "b", LONG).await;
    new.owner.version = "v2".into();
    for side in SIDES {
        old.insert(side, [1], false).await;
        new.insert(side, [2], false).await;
        let claims = new.claim(side, 10).await;
        assert_eq!(ids(&claims.rows), [2]);
        assert_eq!(claims.next_due, None, "rows of other versions do not matter");
        assert_eq!(ids(&old.claim(side, 10).await.rows), [1]);
        assert_eq!(old.row(side, 2).await.version, "v2");
    }
}

/// A node takes nothing for groups that it does not host.
pub async fn only_the_requested_groups_are_claimed<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for (id, group) in [(1, "billing"), (2, "stock"), (3, "mail"), (4, "billing")] {
        node.receive(NewIncoming { group: group.into(), ..incoming(id, false) }).await;
    }
    let claims = node.claim_groups(Side::Inbox, &[], 10).await;
    assert_eq!((claims.rows.len(), claims.next_due), (0, None), "no groups, no rows");
    assert_eq!(node.claim_groups(Side::Inbox, &["bill", "billing.v1", ""], 10).await.rows.len(), 0);
    let rows = node.claim_groups(Side::Inbox, &["billing", "mail", "billing"], 10).await.rows;
    assert_eq!(ids(&rows), [1, 3, 4]);
    let groups: BTreeSet<_> = rows.iter().map(|row| Arc::clone(&row.group)).collect();
    assert_eq!(groups, BTreeSet::from(["billing".into(), "mail".into()]));
    assert_eq!(ids(&node.claim_groups(Side::Inbox, &["stock"], 10).await.rows), [2]);
}

/// Attempts count over the life of a message; those before a re-run are also counted separately.
pub async fn claim_has_the_count_of_failed_attempts<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], true).await;
        assert!(node.complete(side, first_lease(1), retry(Duration::ZERO, "one")).await);
        let claimed = node.claim_in_time(side, 1).await.remove(0);
        assert_eq!((claimed.attempts, claimed.attempts_before_rerun), (1, 0));
        assert!(node.complete(side, claimed.lease, failed(false)).await);
        assert_eq!(node.rerun(side, &[1]).await, [1]);
        let claimed = node.claim_in_time(side, 1).await.remove(0);
        assert_eq!((claimed.attempts, claimed.attempts_before_rerun), (2, 2));
        assert!(node.complete(side, claimed.lease, retry(Duration::ZERO, "three")).await);
        let claimed = node.claim_in_time(side, 1).await.remove(0);
        assert_eq!((claimed.attempts, claimed.attempts_before_rerun), (3, 2));
    }
}
