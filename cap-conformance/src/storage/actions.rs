//! What operators do to rows: re-run, cancel, delete.

use std::time::Duration;

use cap_adapter::monitor::{Among, Monitor, Query};
use cap_adapter::storage::{Entry, NewIncoming, Reason, Retention, RowOutcome, Side, Status};

use super::StorageFixture;
use super::monitor::list;
use super::node::{
    LONG, NOTHING, Node, SHORT, SIDES, delayed, failed, first_lease, ids, incoming, message, outgoing, retry,
    succeeded,
};
use crate::patience::eventually;

/// An operator may act while they are still being told, and what is said about the notice afterwards is not heard.
pub async fn row_is_rerun_while_an_operator_is_notified<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1, 2], true).await;
        for id in [1, 2] {
            assert!(a.complete(side, first_lease(id), failed(true)).await);
        }
        assert_eq!(b.rerun(side, &[1]).await, [1]);
        assert!(
            !a.complete(side, first_lease(1), RowOutcome::Notified).await,
            "it has been taken from the notice"
        );
        let claimed = b.claim(side, 10).await.rows;
        assert_eq!(claimed.iter().map(|row| row.lease.id).collect::<Vec<_>>(), [1]);
        assert!(claimed[0].notice.is_none(), "it is work now");
        let deleted = b.store.delete(side, &[1, 2], Among::All).await.expect("rows are deleted");
        assert_eq!(deleted, [2], "what is worked on stays");
        assert!(!a.complete(side, first_lease(2), RowOutcome::Notified).await);
    }
}

/// An operator has repaired what was wrong: the message is due at once, its history is kept, its policy starts anew.
pub async fn a_failed_row_is_run_again<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1, 2], true).await;
        assert!(a.complete(side, first_lease(1), failed(false)).await);
        assert_eq!(b.rerun(side, &[1, 404]).await, [1], "what is not there is passed over");
        let row = b.row(side, 1).await;
        assert_eq!((row.status, row.reason, row.expires, row.owner), (Status::Scheduled, None, None, None));
        assert_eq!((row.attempts, row.reruns), (1, 1));
        assert_eq!(row.last_error.as_deref(), Some("the last straw"), "what went wrong last is still told");
        let claimed = b.claim(side, 10).await.rows.remove(0);
        assert_eq!((claimed.attempts, claimed.attempts_before_rerun), (1, 1));
        assert!(b.complete(side, claimed.lease, failed(false)).await);
        assert_eq!(b.attempts(side, 1).await.iter().map(|at| at.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(b.rerun(side, &[1]).await, [1]);
        assert_eq!(b.row(side, 1).await.reruns, 2);
    }
    let entry =
        Entry::Parked { reason: Reason::NoSubscriber, error: "nobody".to_owned(), keep: LONG, notify: false };
    a.receive(NewIncoming { entry, ..incoming(3, false) }).await;
    assert_eq!(a.rerun(Side::Inbox, &[3]).await, [3]);
    let claimed = a.claim(Side::Inbox, 1).await;
    assert!(claimed.rows.iter().all(|row| row.notice.is_none()), "it is work now");
}

/// A message that succeeded can be run again, with a state or without, kept or forgotten.
pub async fn a_row_that_succeeded_is_run_again<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1, 2], true).await;
        assert!(node.complete(side, first_lease(1), succeeded(Retention::Forget)).await);
        assert!(node.complete(side, first_lease(2), succeeded(Retention::Keep(LONG))).await);
        let mut done = node.rerun(side, &[2, 1]).await;
        done.sort_unstable();
        assert_eq!(done, [1, 2]);
        for id in [1, 2] {
            let row = node.row(side, id).await;
            assert_eq!((row.status, row.reruns, row.expires), (Status::Scheduled, 1, None));
        }
        let mut rows = node.claim(side, 10).await.rows;
        rows.sort_by_key(|row| row.lease.id);
        assert_eq!(ids(&rows), [1, 2]);
        assert_eq!(rows[0].message, message("m1", "order.created"));
        assert!(node.complete(side, rows[0].lease, succeeded(Retention::Forget)).await);
        assert_eq!(node.row(side, 1).await.status, Status::Succeeded);
    }
}

/// Running a delayed or a resting message again means now.
pub async fn a_delayed_row_is_run_now<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    node.publish(delayed(1, LONG)).await;
    node.publish(outgoing(2, true)).await;
    assert!(node.complete(Side::Outbox, first_lease(2), retry(LONG, "later")).await);
    assert_eq!(node.rerun(Side::Outbox, &[1, 2]).await.len(), 2);
    assert_eq!(node.row(Side::Outbox, 1).await.status, Status::Scheduled);
    let mut rows = node.claim(Side::Outbox, 10).await.rows;
    rows.sort_by_key(|row| row.lease.id);
    assert_eq!(ids(&rows), [1, 2]);
}

/// Nobody interferes with a node that works; once its lease is over, an operator may.
pub async fn a_row_in_work_is_not_run_again<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", SHORT).await);
    for side in SIDES {
        a.insert(side, [1], true).await;
        b.insert(side, [2], true).await;
        assert_eq!(a.rerun(side, &[1]).await, NOTHING);
        assert!(a.complete(side, first_lease(1), succeeded(Retention::Forget)).await, "a is not disturbed");
        eventually("the short lease to end", async || (a.rerun(side, &[2]).await == [2]).then_some(())).await;
        assert_eq!(a.row(side, 2).await.owner, None);
        assert!(
            !b.complete(side, first_lease(2), failed(false)).await,
            "a late word does not undo the re-run"
        );
    }
}

/// A delayed message that was cancelled is not sent, and tells why.
pub async fn delayed_row_is_cancelled<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    node.publish(delayed(1, LONG)).await;
    node.publish(delayed(2, LONG)).await;
    assert_eq!(node.store.cancel(&[1, 404], LONG).await.unwrap(), [1]);
    let row = node.row(Side::Outbox, 1).await;
    assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::Cancelled)));
    assert_eq!((row.due, row.owner, row.attempts), (None, None, 0));
    assert!(row.expires.expect("it is kept for a time") > row.added + LONG.mul_f32(0.9));
    assert_eq!(node.row(Side::Outbox, 2).await.status, Status::Delayed);
    assert_eq!(node.store.cancel(&[1], LONG).await.unwrap(), NOTHING, "once is enough");
    assert_eq!(node.store.cancel(&[2], LONG).await.unwrap(), [2]);
    node.expect_nothing_due(Side::Outbox).await;
}

/// Too late: what is on its way, done, or was never delayed is left alone.
pub async fn row_that_is_not_delayed_is_not_cancelled<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    node.publish(delayed(1, Duration::from_millis(1))).await;
    let claimed = node.claim_in_time(Side::Outbox, 1).await.remove(0);
    node.insert(Side::Outbox, [2, 3], true).await;
    node.insert(Side::Outbox, [4], false).await;
    assert!(node.complete(Side::Outbox, first_lease(3), succeeded(Retention::Forget)).await);
    assert_eq!(node.store.cancel(&[1, 2, 3, 4], LONG).await.unwrap(), NOTHING);
    assert!(node.complete(Side::Outbox, claimed.lease, succeeded(Retention::Forget)).await);
    assert_eq!(ids(&node.claim(Side::Outbox, 10).await.rows), [4]);
}

/// Deleted rows are gone with their history; what somebody works on stays.
pub async fn deleting_takes_all_but_what_is_in_work<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1, 2, 3], true).await;
        node.insert(side, [4], false).await;
        assert!(node.complete(side, first_lease(1), failed(false)).await);
        assert!(node.complete(side, first_lease(2), succeeded(Retention::Forget)).await);
        let mut done = node.store.delete(side, &[1, 2, 3, 4, 404], Among::All).await.unwrap();
        done.sort_unstable();
        assert_eq!(done, [1, 2, 4]);
        assert_eq!(list(&node, &Query::new(side)).await, [3]);
        assert_eq!(node.attempts(side, 1).await, []);
        assert!(node.complete(side, first_lease(3), succeeded(Retention::Forget)).await);
        node.expect_nothing_due(side).await;
        node.insert(side, [1], true).await;
    }
}
