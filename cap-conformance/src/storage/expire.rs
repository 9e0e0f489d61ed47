//! Expiry: what is deleted, what never is, and in which portions.

use std::time::{Duration, Instant};

use cap_adapter::monitor::Monitor;
use cap_adapter::storage::{Entry, Expiry, NewIncoming, Reason, Retention, RowOutcome, Side, Storage};

use super::StorageFixture;
use super::node::{
    LONG, Node, SIDES, delayed, first_lease, incoming, retry, row_completion, row_completions, succeeded,
};
use crate::patience::eventually;

/// Deletes what has expired, with succeeded messages kept for this long.
async fn expire<S: Storage + Monitor>(node: &Node<S>, succeeded: Duration, limit: usize) -> (u64, u64) {
    node.store.delete_expired(&Expiry { succeeded, limit }).await.expect("expired rows are deleted")
}

/// Deletes until this many rows of each side are gone in all, and expects that no further one is.
async fn expire_in_time<S: Storage + Monitor>(node: &Node<S>, succeeded: Duration, each: u64) {
    let mut gone = (0, 0);
    eventually("rows to expire", async || {
        let more = expire(node, succeeded, 100).await;
        gone = (gone.0 + more.0, gone.1 + more.1);
        (gone.0 >= each && gone.1 >= each).then_some(())
    })
    .await;
    assert_eq!(gone, (each, each));
}

/// Rows 1 to 3 succeed and are forgotten.
async fn forget_three<S: Storage + Monitor>(node: &Node<S>, side: Side) {
    node.insert(side, 1..=3, true).await;
    let done = (1..=3).map(|id| row_completion(first_lease(id), succeeded(Retention::Forget))).collect();
    node.write(&row_completions(side, done)).await;
}

/// A message without a state lives for as long as the collector says, counted from when it was stored.
pub async fn what_was_forgotten_expires_by_age<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        forget_three(&node, side).await;
    }
    assert_eq!(expire(&node, LONG, 100).await, (0, 0), "they are not that old");
    let age = Duration::from_millis(500);
    expire_in_time(&node, age, 3).await;
    for side in SIDES {
        assert!(node.get(side, 1).await.is_none());
    }
    // The storage is old enough by now to have rows of that age; one that is younger must stay. If this machine was
    // too slow to know that it is younger, another is looked at.
    let mut id = 10;
    eventually("a young row to be left", async || {
        id += 1;
        let start = Instant::now();
        node.insert(Side::Outbox, [id], true).await;
        assert!(node.complete(Side::Outbox, first_lease(id), succeeded(Retention::Forget)).await);
        expire(&node, age, 100).await;
        let left = node.get(Side::Outbox, id).await.is_some();
        (start.elapsed() < age).then(|| assert!(left, "it was younger than {age:?}"))
    })
    .await;
}

/// A kept state row has an expiry of its own; the age of the others does not matter to it.
pub async fn what_was_kept_expires_by_its_own_time<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1, 2], true).await;
        for (id, keep) in [(1, Duration::from_millis(300)), (2, LONG)] {
            let hold = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: "at first".to_owned() };
            assert!(node.complete(side, first_lease(id), hold).await);
            assert!(node.complete(side, first_lease(id), succeeded(Retention::Keep(keep))).await);
        }
    }
    expire_in_time(&node, Duration::ZERO, 1).await;
    for side in SIDES {
        assert!(node.get(side, 1).await.is_none());
        assert_eq!(node.attempts(side, 1).await, [], "attempts go with their message");
        assert!(node.get(side, 2).await.is_some());
        assert_eq!(node.attempts(side, 2).await.len(), 1);
    }
}

/// What waits for an operator waits for as long as was said, and what was parked does too.
pub async fn what_failed_expires_by_its_own_time<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let soon = Duration::from_millis(300);
    for side in SIDES {
        node.insert(side, [1, 2], true).await;
        for (id, keep) in [(1, soon), (2, LONG)] {
            let failed = RowOutcome::Failed {
                reason: Reason::Permanent,
                error: "no".to_owned(),
                counted: true,
                keep,
                notify: false,
            };
            assert!(node.complete(side, first_lease(id), failed).await);
        }
    }
    expire_in_time(&node, Duration::ZERO, 1).await;
    for side in SIDES {
        assert!(node.get(side, 1).await.is_none());
        assert!(node.get(side, 2).await.is_some());
    }
    let entry =
        Entry::Parked { reason: Reason::Undecodable, error: "no".to_owned(), keep: soon, notify: false };
    node.receive(NewIncoming { entry, ..incoming(3, false) }).await;
    eventually("the parked row to expire", async || {
        (expire(&node, Duration::ZERO, 100).await == (0, 1)).then_some(())
    })
    .await;
}

/// Scheduled, held, delayed, to be retried: none is ever deleted, however old.
pub async fn what_is_unfinished_never_expires<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], false).await;
        node.insert(side, [2, 3, 4], true).await;
        assert!(node.complete(side, first_lease(3), retry(LONG, "later")).await);
        assert!(node.complete(side, first_lease(4), RowOutcome::Release { after: LONG }).await);
    }
    node.publish(delayed(5, LONG)).await;
    // A row that succeeded later than all of them shows that their age would have been enough.
    for side in SIDES {
        node.insert(side, [9], true).await;
        assert!(node.complete(side, first_lease(9), succeeded(Retention::Forget)).await);
    }
    expire_in_time(&node, Duration::ZERO, 1).await;
    for side in SIDES {
        for id in 1..=4 {
            assert!(node.get(side, id).await.is_some(), "{side:?} {id}");
        }
    }
    assert!(node.get(Side::Outbox, 5).await.is_some());
}

/// The collector goes in bounded portions, oldest first, and sees by the number whether it must go on.
pub async fn the_limit_bounds_what_is_deleted<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        forget_three(&node, side).await;
    }
    let mut portions = (Vec::new(), Vec::new());
    eventually("the rows to expire", async || {
        let gone = expire(&node, Duration::from_millis(1), 2).await;
        for (side, gone, portions) in
            [(Side::Outbox, gone.0, &mut portions.0), (Side::Inbox, gone.1, &mut portions.1)]
        {
            if gone > 0 {
                portions.push(gone);
                let youngest = node.get(side, 3).await;
                assert_eq!(youngest.is_some(), portions.len() == 1, "the youngest goes last");
            }
        }
        (portions.0.len() + portions.1.len() == 4).then_some(())
    })
    .await;
    assert_eq!(portions, (vec![2, 1], vec![2, 1]), "at most two of each side at a time");
    assert_eq!(expire(&node, Duration::ZERO, 2).await, (0, 0));
}

/// With a message its id is forgotten: the next of that id is new.
pub async fn a_deleted_message_id_is_free_again<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        forget_three(&node, side).await;
    }
    expire_in_time(&node, Duration::ZERO, 3).await;
    for side in SIDES {
        node.insert(side, 1..=3, true).await;
    }
}
