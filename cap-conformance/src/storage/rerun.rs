//! Re-runs with a change: what was wrong with a message is mended, and it is said in the message by whom.

use cap_core::message::headers::names;
use cap_core::monitor::{Change, Monitor};
use cap_core::storage::Retention;

use super::StorageFixture;
use super::node::{LONG, NOTHING, Node, SIDES, failed, first_lease, ids, message, succeeded};

fn audit(line: impl Into<String>) -> Change {
    Change { audit: Some(line.into()), body: None }
}

/// Body and audit are in what the next claim gives, and in what people see; everything else of the message is as it was.
pub async fn a_rerun_may_change_the_message<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1, 2, 3], true).await;
        assert!(a.settle(side, first_lease(1), failed(false)).await);
        assert!(a.settle(side, first_lease(2), succeeded(Retention::Forget)).await);
        let body = b"\x00\xff{\"OrderId\":8}".to_vec();
        let change = Change { audit: Some("alice mended it".to_owned()), body: Some(body.clone().into()) };
        let mut done = b.rerun_changed(side, &[1, 404, 2], &change).await;
        done.sort_unstable();
        assert_eq!(done, [1, 2], "what is not there is passed over");
        let mut rows = b.claim_in_time(side, 2).await;
        rows.sort_by_key(|row| row.lease.id);
        for (row, id) in rows.iter().zip([1, 2]) {
            let mut expected = (*message(&format!("m{id}"), "order.created")).clone();
            expected.headers.insert(names::AUDIT, "alice mended it");
            expected.body = body.clone().into();
            assert_eq!(*row.message, expected);
            assert_eq!(*a.row(side, id).await.message, expected);
            let found = a.store.find(side, &format!("m{id}")).await.expect("rows are found");
            assert_eq!(found.len(), 1, "it is found by its message id as before");
        }
        assert_eq!(a.row(side, 3).await.message, message("m3", "order.created"), "nobody spoke of this one");
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
        assert!(a.settle(side, first_lease(1), succeeded(Retention::Forget)).await, "a is not disturbed");
    }
}

/// A person may name as many rows as there are: ten thousand are run again and changed at once.
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
