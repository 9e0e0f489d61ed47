//! Outcomes: what each makes of a row.

use std::time::Duration;

use cap_adapter::monitor::FailedAttempt;
use cap_adapter::storage::{
    NewOutgoing, Reason, Retention, RowCompletion, RowOutcome, Side, Status, WriteBatch,
};

use super::StorageFixture;
use super::node::{
    GROUP, LONG, NOTHING, Node, SHORT, SIDES, failed, first_lease, ids, message, outgoing, retry, succeeded,
    waits,
};

/// What succeeded at once is still there for people to see, with nothing to tell, and never comes back.
pub async fn success_may_forget_the_state<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], true).await;
        assert!(node.complete(side, first_lease(1), succeeded(Retention::Forget)).await);
        node.expect_nothing_due(side).await;
        let row = node.row(side, 1).await;
        assert_eq!((row.status, row.reason, row.due, row.owner), (Status::Succeeded, None, None, None));
        assert_eq!(row.message, message("m1", "order.created"));
        assert!(!node.complete(side, first_lease(1), retry(LONG, "late")).await, "the lease is used up");
    }
}

/// A story worth telling is kept, with how it went, for the time that was said.
pub async fn success_may_keep_the_state<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], true).await;
        let hold = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: "at first".to_owned() };
        assert!(node.complete(side, first_lease(1), hold).await);
        assert!(node.complete(side, first_lease(1), succeeded(Retention::Keep(LONG))).await);
        node.expect_nothing_due(side).await;
        let row = node.row(side, 1).await;
        assert_eq!((row.status, row.reason, row.attempts), (Status::Succeeded, None, 1));
        assert_eq!(row.last_error.as_deref(), Some("at first"));
        assert_eq!((row.due, row.owner), (None, None));
        assert!(row.expires.expect("it is kept for a time") > row.added + LONG.mul_f32(0.9));
        assert_eq!(node.attempts(side, 1).await.len(), 1);
    }
}

/// Nothing stays, not even the memory of its id.
pub async fn success_may_delete_everything<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], true).await;
        let hold = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: "at first".to_owned() };
        assert!(node.complete(side, first_lease(1), hold).await);
        assert!(node.complete(side, first_lease(1), succeeded(Retention::Delete)).await);
        assert!(node.get(side, 1).await.is_none());
        assert_eq!(node.attempts(side, 1).await, []);
        node.insert(side, [1], true).await;
    }
}

/// A message that no queue wanted counts as succeeded, and can be found by that.
pub async fn an_unrouted_message_keeps_its_reason<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    node.insert(Side::Outbox, [1, 2], true).await;
    let retentions = [Retention::Keep(LONG), Retention::Forget];
    for (id, retention) in (1..).zip(retentions) {
        let outcome = RowOutcome::Succeeded { retention, reason: Some(Reason::Unrouted) };
        assert!(node.complete(Side::Outbox, first_lease(id), outcome).await);
        let row = node.row(Side::Outbox, id).await;
        assert_eq!((row.status, row.reason), (Status::Succeeded, Some(Reason::Unrouted)), "{retention:?}");
    }
    node.expect_nothing_due(Side::Outbox).await;
}

/// The node goes on at once under the lease it has, which starts anew.
pub async fn a_retry_with_hold_stays_with_its_node<F: StorageFixture>(fixture: &F) {
    let mut a = Node::open(fixture, "a", SHORT).await;
    let b = Node::open(fixture, "b", LONG).await;
    for side in SIDES {
        a.owner.lease = SHORT;
        a.insert(side, [1, 2], true).await;
        a.owner.lease = LONG;
        let hold = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: "first".to_owned() };
        assert!(a.complete(side, first_lease(1), hold).await);
        assert_eq!(ids(&b.claim_in_time(side, 1).await), [2], "the other shows that the short lease is over");
        let row = b.row(side, 1).await;
        assert_eq!((row.status, row.attempts, row.owner.as_deref()), (Status::Retrying, 1, Some("a")));
        assert_eq!(row.last_error.as_deref(), Some("first"));
        assert_eq!(a.renew(side, &[first_lease(1)]).await, [true]);
        assert!(a.complete(side, first_lease(1), succeeded(Retention::Forget)).await);
    }
}

/// The row rests for as long as was said, and then goes to whoever comes first.
pub async fn a_retry_without_hold_goes_to_anyone<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1, 2], true).await;
        assert!(a.complete(side, first_lease(1), retry(LONG, "much later")).await);
        assert!(a.complete(side, first_lease(2), retry(Duration::from_millis(300), "soon")).await);
        let row = b.row(side, 2).await;
        assert_eq!((row.status, row.attempts, row.owner), (Status::Retrying, 1, None));
        let rows = b.claim_in_time(side, 1).await;
        assert_eq!(ids(&rows), [2]);
        assert_eq!((rows[0].attempts, rows[0].lease.epoch), (1, 2));
        assert!(rows[0].age >= Duration::from_millis(300), "not before its time");
        assert_eq!(ids(&b.claim(side, 10).await.rows), NOTHING);
    }
}

/// Each failed attempt leaves its number, its node and its error. A storage that cannot hold a NUL in text for people
/// may show it as the replacement character.
pub async fn every_attempt_is_recorded<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1, 2], true).await;
        let hold =
            |error: &str| RowOutcome::Retry { after: Duration::ZERO, hold: true, error: error.to_owned() };
        assert!(a.complete(side, first_lease(1), hold("one \0 \u{1F40E} \"quoted\"")).await);
        assert!(a.complete(side, first_lease(2), hold("of another message")).await);
        assert!(a.complete(side, first_lease(1), retry(Duration::ZERO, "two")).await);
        let lease = b.claim_in_time(side, 1).await.remove(0).lease;
        assert!(b.complete(side, lease, failed(false)).await);
        let attempts = b.attempts(side, 1).await;
        let legible = |at: &FailedAttempt| (at.number, at.node.clone(), at.error.replace('\0', "\u{FFFD}"));
        let told: Vec<_> = attempts.iter().map(legible).collect();
        let expected =
            [(1, "a", "one \u{FFFD} \u{1F40E} \"quoted\""), (2, "a", "two"), (3, "b", "the last straw")];
        assert_eq!(told, expected.map(|(number, node, error)| (number, node.to_owned(), error.to_owned())));
        assert!(attempts.is_sorted_by_key(|FailedAttempt { at, .. }| *at));
        assert!(attempts[0].at >= b.row(side, 1).await.added);
    }
}

/// With each failed attempt stands when the next one was due, whatever has happened to the row since: at once, later, or
/// never.
pub async fn attempt_records_when_the_next_was_due<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], true).await;
        let hold = RowOutcome::Retry { after: LONG, hold: true, error: "at once".to_owned() };
        assert!(node.complete(side, first_lease(1), hold).await);
        assert!(node.complete(side, first_lease(1), retry(LONG, "later")).await);
        assert_eq!(node.rerun(side, &[1]).await, [1]);
        let lease = node.claim_in_time(side, 1).await.remove(0).lease;
        assert!(node.complete(side, lease, failed(false)).await);
        let next: Vec<_> = node.attempts(side, 1).await.iter().map(waits).collect();
        assert_eq!(next, [Some(Duration::ZERO), Some(LONG), None]);
    }
}

/// What has failed for good waits for an operator, and for its expiry.
pub async fn a_failure_is_final<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], true).await;
        assert!(node.complete(side, first_lease(1), failed(false)).await);
        node.expect_nothing_due(side).await;
        let row = node.row(side, 1).await;
        assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::Exhausted)));
        assert_eq!((row.attempts, row.last_error.as_deref()), (1, Some("the last straw")));
        assert_eq!((row.due, row.owner), (None, None));
        assert!(row.expires.expect("it is kept for a time") > row.added + LONG.mul_f32(0.9));
    }
}

/// A message that cannot be worked on at all has failed without an attempt.
pub async fn a_failure_may_count_no_attempt<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], true).await;
        let outcome = RowOutcome::Failed {
            reason: Reason::Undecodable,
            error: "not an order".to_owned(),
            counted: false,
            keep: LONG,
            notify: false,
        };
        assert!(node.complete(side, first_lease(1), outcome).await);
        let row = node.row(side, 1).await;
        assert_eq!((row.status, row.reason, row.attempts), (Status::Failed, Some(Reason::Undecodable), 0));
        assert_eq!(row.last_error.as_deref(), Some("not an order"));
        assert_eq!(node.attempts(side, 1).await, []);
    }
}

/// The node that was to call the failure callback dies: another node claims the row for that alone.
pub async fn a_notice_falls_to_another_node<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", SHORT).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1], true).await;
        assert!(a.complete(side, first_lease(1), failed(true)).await);
        let row = b.row(side, 1).await;
        assert_eq!((row.status, row.owner.as_deref()), (Status::Failed, Some("a")));
        let claimed = b.claim_in_time(side, 1).await.remove(0);
        assert_eq!(claimed.notice, Some((Reason::Exhausted, "the last straw".to_owned())));
        assert_eq!((claimed.attempts, claimed.lease.epoch), (1, 2));
        assert!(b.complete(side, claimed.lease, RowOutcome::Notified).await);
        b.expect_nothing_due(side).await;
        let row = b.row(side, 1).await;
        assert_eq!((row.status, row.reason, row.owner), (Status::Failed, Some(Reason::Exhausted), None));
        assert!(row.expires.is_some(), "it still expires");
    }
}

/// The failure callback is due once: after `Notified` the row is claimed for nothing, and after a re-run it is a message to handle again.
pub async fn a_notice_given_is_never_due_again<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], true).await;
        assert!(node.complete(side, first_lease(1), failed(true)).await);
        assert!(node.complete(side, first_lease(1), RowOutcome::Notified).await);
        node.expect_nothing_due(side).await;
        assert_eq!(node.rerun(side, &[1]).await, [1]);
        let claimed = node.claim_in_time(side, 1).await.remove(0);
        assert_eq!(claimed.notice, None);
    }
}

/// A row released without a pause comes before younger rows, however often it was claimed.
pub async fn a_released_row_keeps_its_place<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        for id in [3, 1, 2] {
            a.insert(side, [id], true).await;
        }
        let release = RowOutcome::Release { after: Duration::ZERO };
        for id in [2, 3, 1] {
            assert!(a.complete(side, first_lease(id), release.clone()).await);
        }
        let row = b.row(side, 1).await;
        assert_eq!((row.status, row.attempts, row.owner), (Status::Scheduled, 0, None), "nothing is counted");
        a.insert(side, [4], false).await;
        let rows = b.claim(side, 10).await.rows;
        assert_eq!(ids(&rows), [3, 1, 2, 4], "by age");
        assert_eq!(b.attempts(side, 1).await, []);
    }
}

/// A row released with a pause has no owner and is not due until its end; a released retry stays a retry.
pub async fn a_released_row_may_rest<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1, 2], true).await;
        assert!(a.complete(side, first_lease(1), RowOutcome::Release { after: LONG }).await);
        let hold = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: "one".to_owned() };
        assert!(a.complete(side, first_lease(2), hold).await);
        let soon = RowOutcome::Release { after: Duration::from_millis(300) };
        assert!(a.complete(side, first_lease(2), soon).await);
        let rows = b.claim_in_time(side, 1).await;
        assert_eq!((ids(&rows), rows[0].attempts), (vec![2], 1));
        assert_eq!(b.row(side, 2).await.status, Status::Retrying, "released unchanged");
        let row = b.row(side, 1).await;
        assert_eq!((row.status, row.owner), (Status::Scheduled, None));
        assert_eq!(ids(&b.claim(side, 10).await.rows), NOTHING);
    }
}

fn success_with(id: i64, publishes: Vec<NewOutgoing>) -> RowCompletion {
    RowCompletion { lease: first_lease(id), outcome: succeeded(Retention::Forget), publishes }
}

/// An answer enters the outbox in the transaction in which its question is done: held by the node, or anyone's.
pub async fn replies_are_stored_with_the_success<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    a.insert(Side::Inbox, [1, 2], true).await;
    a.publish(outgoing(9, true)).await;
    let known = NewOutgoing { message: message("m9", "order.created"), ..outgoing(13, false) };
    let completed = vec![
        success_with(1, vec![outgoing(11, true), outgoing(12, false)]),
        success_with(2, vec![known, outgoing(14, false)]),
    ];
    let report = a.write(&WriteBatch { completed_incoming: completed, ..WriteBatch::default() }).await;
    assert_eq!(report.completed_incoming, [true, true]);
    assert_eq!(ids(&b.claim(Side::Outbox, 10).await.rows), [12, 14]);
    assert_eq!(b.row(Side::Outbox, 11).await.owner.as_deref(), Some("a"));
    assert!(a.complete(Side::Outbox, first_lease(11), succeeded(Retention::Forget)).await);
    assert!(b.get(Side::Outbox, 13).await.is_none(), "a known message id is not stored twice");
    assert_eq!(b.row(Side::Inbox, 1).await.status, Status::Succeeded);
}

/// Whoever has lost the question does not answer it: its successor will.
pub async fn replies_of_a_lost_lease_are_not_stored<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", SHORT).await, Node::open(fixture, "b", LONG).await);
    a.insert(Side::Inbox, [1], true).await;
    b.insert(Side::Inbox, [2], true).await;
    assert_eq!(ids(&b.claim_in_time(Side::Inbox, 1).await), [1]);
    let completed =
        vec![success_with(1, vec![outgoing(11, false)]), success_with(2, vec![outgoing(12, false)])];
    let report = a.write(&WriteBatch { completed_incoming: completed, ..WriteBatch::default() }).await;
    assert_eq!(report.completed_incoming, [false, true]);
    assert_eq!(ids(&b.claim(Side::Outbox, 10).await.rows), [12]);
    assert!(b.get(Side::Outbox, 11).await.is_none());
    assert_eq!(b.claim_groups(Side::Inbox, &[GROUP], 10).await.rows.len(), 0);
}
