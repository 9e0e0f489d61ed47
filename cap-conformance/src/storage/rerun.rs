//! Re-runs with a change: what was wrong with a message is repaired, and it is said in the message by whom. And who is
//! named, but is no failure any more, when an operator acts on failures.

use cap_adapter::message::headers::names;
use std::collections::BTreeMap;

use cap_adapter::monitor::{Among, Change, Monitor};
use cap_adapter::storage::{Lease, Retention, Side, Status, Storage, WriteBatch};
use futures_util::future::join_all;

use super::StorageFixture;
use super::node::{
    LONG, NOTHING, Node, SIDES, failed, first_lease, ids, message, retry, row_completion, succeeded,
};

fn audit(line: impl Into<String>) -> Change {
    Change { audit: Some(line.into()), body: None }
}

/// Body and audit are in what the next claim gives, and in what people see; everything else of the message is as it was.
pub async fn a_rerun_may_change_the_message<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1, 2, 3], true).await;
        assert!(a.complete(side, first_lease(1), failed(false)).await);
        assert!(a.complete(side, first_lease(2), succeeded(Retention::Forget)).await);
        let body = b"\x00\xff{\"OrderId\":8}".to_vec();
        let change = Change { audit: Some("alice repaired it".to_owned()), body: Some(body.clone().into()) };
        let mut done = b.rerun_changed(side, &[1, 404, 2], &change).await;
        done.sort_unstable();
        assert_eq!(done, [1, 2], "what is not there is passed over");
        let mut rows = b.claim_in_time(side, 2).await;
        rows.sort_by_key(|row| row.lease.id);
        for (row, id) in rows.iter().zip([1, 2]) {
            let mut expected = (*message(&format!("m{id}"), "order.created")).clone();
            expected.headers.insert(names::AUDIT, "alice repaired it");
            expected.body = body.clone().into();
            assert_eq!(*row.message, expected);
            assert_eq!(*a.row(side, id).await.message, expected);
            let found = a.store.find(side, &format!("m{id}")).await.expect("rows are found");
            assert_eq!(found.len(), 1, "it is found by its message id as before");
        }
        assert_eq!(a.row(side, 3).await.message, message("m3", "order.created"), "nobody spoke of this one");
    }
}

/// Outcomes of both sides in one batch, as most are: each row that a lease holds is forgotten, but of one that was re-run the
/// epoch stays, so that no lease is given twice.
pub async fn both_sides_forget_what_their_leases_hold<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1, 2, 3], true).await;
        assert!(a.complete(side, first_lease(1), failed(false)).await);
        assert_eq!(b.rerun(side, &[1]).await, [1]);
        assert_eq!(ids(&a.claim_in_time(side, 1).await), [1]);
    }
    let row = a.row(Side::Inbox, 1).await;
    let rerun = Lease { id: 1, epoch: 2 };
    let forgotten = |lease| row_completion(lease, succeeded(Retention::Forget));
    // Out of order, one of a lease that is not the row's, one of a row that is not there.
    let completed = || {
        let leases = [first_lease(3), Lease { id: 2, epoch: 7 }, rerun, first_lease(9)];
        leases.into_iter().map(forgotten).collect::<Vec<_>>()
    };
    let batch = || WriteBatch {
        completed_outgoing: completed(),
        completed_incoming: completed(),
        ..WriteBatch::default()
    };
    let report = a.write(&batch()).await;
    assert_eq!(report.completed_outgoing, [true, false, true, false], "{row:?}");
    assert_eq!(report.completed_incoming, [true, false, true, false]);
    let again = a.write(&batch()).await;
    assert_eq!((again.completed_outgoing, again.completed_incoming), (vec![false; 4], vec![false; 4]));
    for side in SIDES {
        assert!(a.complete(side, first_lease(2), succeeded(Retention::Forget)).await, "that one was left");
        assert_eq!(b.rerun(side, &[1]).await, [1]);
        let claimed = a.claim_in_time(side, 1).await;
        assert!(claimed[0].lease.epoch > rerun.epoch, "{claimed:?}");
    }
}

/// Without a new body the old one stays; without a line nothing is added.
pub async fn a_change_may_be_of_one_kind<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], false).await;
        let original = message("m1", "order.created");
        assert_eq!(node.rerun_changed(side, &[1], &audit("line\none\0 \u{1F40E}")).await, [1]);
        let row = node.row(side, 1).await;
        assert_eq!(row.message.body, original.body);
        assert_eq!(row.message.headers.get(names::AUDIT), Some("line one  \u{1F40E}"), "a line is a line");
        let emptied = Change { audit: None, body: Some("".into()) };
        assert_eq!(node.rerun_changed(side, &[1], &emptied).await, [1]);
        let row = node.row(side, 1).await;
        assert_eq!(row.message.body.len(), 0, "an empty body is a body");
        assert_eq!(row.message.headers.get(names::AUDIT), Some("line one  \u{1F40E}"));
        assert_eq!(node.rerun(side, &[1]).await, [1]);
        assert_eq!(node.row(side, 1).await.message, row.message);
        assert_eq!(node.row(side, 1).await.reruns, 3);
    }
}

/// Each line comes after those before it; the oldest go when there are too many.
pub async fn audit_lines_gather_up_to_a_bound<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let count = Change::AUDIT_LINES + 5;
    for side in SIDES {
        node.insert(side, [1], false).await;
        for number in 1..=count {
            assert_eq!(node.rerun_changed(side, &[1], &audit(format!("line {number}"))).await, [1]);
            let row = node.row(side, 1).await;
            let first = number.saturating_sub(Change::AUDIT_LINES) + 1;
            let expected: Vec<String> = (first..=number).map(|number| format!("line {number}")).collect();
            assert_eq!(row.message.headers.get(names::AUDIT), Some(expected.join("\n").as_str()));
        }
    }
}

/// A message in work is neither run again nor changed under the hands of its node.
pub async fn a_change_leaves_work_alone<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let change = Change { audit: Some("bob was too early".to_owned()), body: Some("no".into()) };
    for side in SIDES {
        a.insert(side, [1], true).await;
        a.insert(side, [2], false).await;
        assert_eq!(ids(&b.claim(side, 1).await.rows), [2]);
        assert_eq!(a.rerun_changed(side, &[1, 2], &change).await, NOTHING);
        for id in [1, 2] {
            let row = a.row(side, id).await;
            assert_eq!((row.message, row.reruns), (message(&format!("m{id}"), "order.created"), 0));
        }
        assert!(a.complete(side, first_lease(1), succeeded(Retention::Forget)).await, "a is not disturbed");
    }
}

/// An operator may name as many rows as there are: ten thousand are run again and changed at once.
pub async fn ten_thousand_rows_are_changed_at_once<F: StorageFixture>(fixture: &F) {
    const COUNT: i64 = 10_000;
    let node = Node::open(fixture, "a", LONG).await;
    let all: Vec<i64> = (1..=COUNT).collect();
    for side in SIDES {
        node.insert(side, 1..=COUNT, false).await;
        let change = Change { audit: Some("carol ran them all".to_owned()), body: Some("new".into()) };
        let done = node.rerun_changed(side, &all, &change).await;
        assert_eq!(done.len(), all.len());
        for id in [1, 999, 1000, 1001, COUNT] {
            let row = node.row(side, id).await;
            assert_eq!((row.message.body.as_ref(), row.reruns), (&b"new"[..], 1), "row {id}");
            assert_eq!(row.message.headers.get(names::AUDIT), Some("carol ran them all"), "row {id}");
        }
    }
}

/// Rows 1 and 2 have failed, and of 2 an operator is still being told; 3 to 8 stand otherwise, and 8 had failed before.
async fn in_every_state<S: Storage + Monitor>(node: &Node<S>, side: Side) {
    node.insert(side, [1, 2, 3, 4, 5, 6, 8], true).await;
    node.insert(side, [7], false).await;
    let completed = [
        (1, failed(false)),
        (2, failed(true)),
        (3, succeeded(Retention::Forget)),
        (4, succeeded(Retention::Keep(LONG))),
        (5, retry(LONG, "later")),
        (8, failed(false)),
    ];
    for (id, outcome) in completed {
        assert!(node.complete(side, first_lease(id), outcome).await);
    }
    assert_eq!(node.rerun(side, &[8]).await, [8]);
}

/// Everything but row 1 and 2, as it is.
async fn others<S: Storage + Monitor>(node: &Node<S>, side: Side) -> Vec<(i64, Status, u32, bool)> {
    let mut seen = Vec::new();
    for id in 3..=8 {
        let row = node.row(side, id).await;
        let is_as_it_was = row.message == message(&format!("m{id}"), "order.created");
        seen.push((id, row.status, row.reruns, is_as_it_was));
    }
    seen
}

/// Who runs failures again leaves everything else alone, also what was a failure when they looked.
pub async fn only_what_failed_is_run_again<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let change = Change { audit: Some("alice ran it".to_owned()), body: Some("new".into()) };
    for side in SIDES {
        in_every_state(&a, side).await;
        let before = others(&a, side).await;
        let again = async || {
            let all = [8, 7, 6, 5, 4, 3, 2, 1, 404];
            b.store.rerun(side, &all, Among::Failed, &change).await.expect("rows are run again")
        };
        let mut done = again().await;
        done.sort_unstable();
        assert_eq!(done, [1, 2]);
        for id in [1, 2] {
            let row = a.row(side, id).await;
            assert_eq!((row.status, row.reruns, &row.message.body[..]), (Status::Scheduled, 1, &b"new"[..]));
        }
        assert_eq!(again().await, NOTHING, "they are no failures any more");
        assert_eq!(others(&a, side).await, before);
        assert!(a.complete(side, first_lease(6), succeeded(Retention::Forget)).await, "a is not disturbed");
    }
}

/// Who deletes failures leaves everything else alone, also what somebody has just repaired.
pub async fn only_what_failed_is_deleted<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        in_every_state(&a, side).await;
        let before = others(&a, side).await;
        let all = [8, 7, 6, 5, 4, 3, 2, 1, 404];
        let mut done = b.store.delete(side, &all, Among::Failed).await.expect("rows are deleted");
        done.sort_unstable();
        assert_eq!(done, [1, 2]);
        assert!(a.get(side, 1).await.is_none() && a.get(side, 2).await.is_none());
        assert_eq!(others(&a, side).await, before);
        assert_eq!(a.attempts(side, 8).await.len(), 1, "its past is kept as well");
    }
}

/// People who act on the same failures at the same time share them: each is run again or deleted, and once.
pub async fn operators_share_failed_rows<F: StorageFixture>(fixture: &F) {
    const COUNT: i64 = 100;
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let up: Vec<i64> = (1..=COUNT).collect();
    let down: Vec<i64> = (1..=COUNT).rev().collect();
    for side in SIDES {
        a.insert(side, 1..=COUNT, true).await;
        for id in 1..=COUNT {
            assert!(a.complete(side, first_lease(id), failed(false)).await);
        }
        let people = (0..6).map(async |person| {
            let node = if person % 2 == 0 { &a } else { &b };
            let (is_deletion, mut done) = (person % 3 == 2, Vec::new());
            for ids in if person < 3 { up.chunks(30) } else { down.chunks(30) } {
                let acted = if is_deletion {
                    node.store.delete(side, ids, Among::Failed).await
                } else {
                    node.store.rerun(side, ids, Among::Failed, &audit("somebody")).await
                };
                done.extend(acted.expect("people do not get into each other's way"));
            }
            (is_deletion, done)
        });
        let mut told = BTreeMap::new();
        for (is_deletion, done) in join_all(people).await {
            for id in done {
                assert_eq!(told.insert(id, is_deletion), None, "row {id} is somebody's already");
            }
        }
        assert_eq!(told.keys().copied().collect::<Vec<_>>(), up);
        for (id, is_deleted) in told {
            let reruns = a.get(side, id).await.map(|row| row.reruns);
            assert_eq!(reruns, (!is_deleted).then_some(1), "row {id}");
        }
    }
}
