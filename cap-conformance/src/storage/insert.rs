//! New rows: what goes in comes out, and each message only once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cap_adapter::message::headers::names;
use cap_adapter::message::{Headers, Message};
use cap_adapter::storage::{
    Entry, NewIncoming, NewOutgoing, Reason, Retention, RowOutcome, Side, Status, Storage as _, Stored,
    WriteBatch, WriteReport,
};

use super::StorageFixture;
use super::node::{
    GROUP, LONG, Node, SHORT, SIDES, delayed, first_lease, ids, incoming, message, outgoing, row_completion,
    row_completions, succeeded,
};

/// Stores a message on both sides and expects it back unchanged, from a claim and from the monitor.
async fn expect_round_trip<F: StorageFixture>(fixture: &F, message: Message) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let message = Arc::new(message);
    a.publish(NewOutgoing { message: Arc::clone(&message), ..outgoing(1, false) }).await;
    a.receive(NewIncoming { message: Arc::clone(&message), ..incoming(2, false) }).await;
    for (side, id) in [(Side::Outbox, 1), (Side::Inbox, 2)] {
        let claimed = b.claim(side, 10).await.rows;
        assert_eq!(ids(&claimed), [id]);
        expect_same(&claimed[0].message, &message);
        expect_same(&b.row(side, id).await.message, &message);
    }
}

/// As `assert_eq!`, without printing megabytes.
fn expect_same(found: &Message, stored: &Message) {
    assert!(found.body == stored.body, "the body of {} bytes came back otherwise", stored.body.len());
    let pairs = |message: &Message| -> Vec<(String, Option<String>)> {
        message.headers.iter().map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).collect()
    };
    assert_eq!(pairs(found), pairs(stored), "the headers, in order");
}

/// A body is bytes, not text.
pub async fn every_byte_of_a_body_survives<F: StorageFixture>(fixture: &F) {
    let body: Vec<u8> = (0..=255).rev().chain(0..=255).collect();
    let headers = message("every-byte", "order.created").headers.clone();
    expect_round_trip(fixture, Message::new(headers, body)).await;
}

/// Any text is a header's name or value; order and nulls count.
pub async fn awkward_headers_survive_in_order<F: StorageFixture>(fixture: &F) {
    let mut headers = message("awkward \"id\" \\ 𝄞", "order.created").headers.clone();
    headers.insert("z last by name, first by place", "quote \" backslash \\ apostrophe ' slash /");
    headers.insert("nul", "before\0after");
    headers.insert("only nul", "\0");
    headers.insert("escaped", "\\u0000 is six characters");
    headers.insert("control", "\u{1}\u{7f}\r\n\t");
    headers.insert("astral 🐎", "𝄞 and 👩‍👩‍👧, right to left \u{202e}");
    headers.insert("empty", "");
    headers.insert_null("null");
    headers.insert("", "a header without a name");
    headers.insert("Case", "upper");
    headers.insert("case", "lower");
    headers.insert("a first by name, last by place", "{\"json\": [null]}");
    expect_round_trip(fixture, Message::new(headers, "")).await;
}

/// Eight megabytes in one message.
pub async fn a_huge_body_survives<F: StorageFixture>(fixture: &F) {
    let body: Vec<u8> = (0..8 * 1024 * 1024_u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    let headers = message("huge", "order.created").headers.clone();
    expect_round_trip(fixture, Message::new(headers, body)).await;
}

/// Every kind of item in one call, answered in order.
pub async fn a_batch_reports_item_by_item<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    node.insert(Side::Outbox, [1, 2], true).await;
    node.insert(Side::Inbox, [3, 4], true).await;
    let done = succeeded(Retention::Forget);
    let batch = WriteBatch {
        outgoing: vec![outgoing(11, true), outgoing(1, true), delayed(12, LONG), outgoing(13, false)],
        incoming: vec![incoming(3, true), incoming(14, true), incoming(15, false)],
        completed_outgoing: vec![
            row_completion(first_lease(99), done.clone()),
            row_completion(first_lease(2), done.clone()),
        ],
        completed_incoming: vec![
            row_completion(first_lease(4), done.clone()),
            row_completion(first_lease(99), done.clone()),
            row_completion(first_lease(3), done),
        ],
    };
    let expected = WriteReport {
        outgoing: vec![Stored::New, Stored::Duplicate, Stored::New, Stored::New],
        incoming: vec![Stored::Duplicate, Stored::New, Stored::New],
        completed_outgoing: vec![false, true],
        completed_incoming: vec![true, false, true],
    };
    assert_eq!(node.write(&batch).await, expected);
    assert_eq!(ids(&node.claim(Side::Outbox, 10).await.rows), [13]);
    assert_eq!(ids(&node.claim(Side::Inbox, 10).await.rows), [15]);
}

/// Nothing to write is written.
pub async fn an_empty_batch_is_no_error<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    assert_eq!(node.write(&WriteBatch::default()).await, WriteReport::default());
    assert_eq!(node.renew(Side::Inbox, &[]).await, Vec::<bool>::new());
    node.expect_nothing_due(Side::Outbox).await;
}

/// Five thousand rows of each side in one call, and their outcomes in another.
pub async fn a_batch_of_five_thousand<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let batch = WriteBatch {
        outgoing: (1..=5000).map(|id| outgoing(id, true)).collect(),
        incoming: (1..=5000).map(|id| incoming(id, true)).collect(),
        ..WriteBatch::default()
    };
    let report = node.write(&batch).await;
    assert_eq!(report.outgoing, vec![Stored::New; 5000]);
    assert_eq!(report.incoming, vec![Stored::New; 5000]);
    for side in SIDES {
        let completed =
            (1..=5000).map(|id| row_completion(first_lease(id), succeeded(Retention::Forget))).collect();
        let report = node.write(&row_completions(side, completed)).await;
        let answers: Vec<bool> =
            report.completed_outgoing.into_iter().chain(report.completed_incoming).collect();
        assert_eq!(answers, vec![true; 5000]);
        node.expect_nothing_due(side).await;
    }
}

/// A second message of one id is not stored, and the first is left as it is.
pub async fn a_message_id_enters_the_outbox_once<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let same = |id| NewOutgoing { message: message("same", "order.created"), ..outgoing(id, false) };
    assert_eq!(a.publish(same(1)).await, Stored::New);
    assert_eq!(b.publish(same(2)).await, Stored::Duplicate);
    assert_eq!(ids(&a.claim(Side::Outbox, 10).await.rows), [1]);
    assert_eq!(b.publish(same(3)).await, Stored::Duplicate, "also while somebody works on it");
    assert_eq!(a.renew(Side::Outbox, &[cap_adapter::storage::Lease { id: 1, epoch: 1 }]).await, [true]);
    assert!(a.get(Side::Outbox, 2).await.is_none());
}

/// Two groups each take the message; neither takes it twice.
pub async fn a_message_id_enters_the_inbox_once_for_each_group<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let same = |id, group: &str| NewIncoming {
        group: group.into(),
        message: message("same", "order.created"),
        ..incoming(id, false)
    };
    assert_eq!(node.receive(same(1, "billing")).await, Stored::New);
    assert_eq!(node.receive(same(2, "billing")).await, Stored::Duplicate);
    assert_eq!(node.receive(same(3, "stock")).await, Stored::New);
    assert_eq!(node.receive(same(4, "stock")).await, Stored::Duplicate);
    assert_eq!(
        node.publish(NewOutgoing { message: message("same", "t"), ..outgoing(5, false) }).await,
        Stored::New
    );
    assert_eq!(ids(&node.claim_groups(Side::Inbox, &["billing", "stock"], 10).await.rows), [1, 3]);
}

/// A message that is done is still known, so that a late copy is not worked on again.
pub async fn a_message_id_is_remembered_after_success<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    node.insert(Side::Inbox, [1], true).await;
    assert!(node.complete(Side::Inbox, first_lease(1), succeeded(Retention::Forget)).await);
    let again = NewIncoming { message: message("m1", "order.created"), ..incoming(2, true) };
    assert_eq!(node.receive(again).await, Stored::Duplicate);
    node.expect_nothing_due(Side::Inbox).await;
}

/// The first of a kind in a batch is new, the second is not.
pub async fn duplicates_inside_one_batch<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let out = |id, name: &str| NewOutgoing { message: message(name, "t"), ..outgoing(id, false) };
    let inn = |id, name: &str| NewIncoming { message: message(name, "t"), ..incoming(id, false) };
    let batch = WriteBatch {
        outgoing: vec![out(1, "x"), out(2, "y"), out(3, "x"), out(4, "z"), out(5, "x")],
        incoming: vec![inn(1, "x"), inn(2, "x"), inn(3, "y")],
        ..WriteBatch::default()
    };
    let report = node.write(&batch).await;
    assert_eq!(
        report.outgoing,
        [Stored::New, Stored::New, Stored::Duplicate, Stored::New, Stored::Duplicate]
    );
    assert_eq!(report.incoming, [Stored::New, Stored::Duplicate, Stored::New]);
    assert_eq!(ids(&node.claim(Side::Outbox, 10).await.rows), [1, 2, 4]);
    assert_eq!(ids(&node.claim(Side::Inbox, 10).await.rows), [1, 3]);
}

/// Foreign messages without an id, or with an empty or a null one, are each a message of their own.
pub async fn messages_without_an_id_never_collide<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let mut null = Headers::new();
    null.insert_null(names::MESSAGE_ID);
    let empty: Headers = [(names::MESSAGE_ID, "")].into_iter().collect();
    let kinds = [Headers::new(), Headers::new(), empty.clone(), empty, null.clone(), null];
    let new = (1..).zip(kinds).map(|(id, headers)| NewIncoming {
        message: Arc::new(Message::new(headers, "{}")),
        ..incoming(id, false)
    });
    let batch = WriteBatch { incoming: new.collect(), ..WriteBatch::default() };
    assert_eq!(node.write(&batch).await.incoming, [Stored::New; 6]);
    assert_eq!(ids(&node.claim(Side::Inbox, 10).await.rows), [1, 2, 3, 4, 5, 6]);
}

/// After a lost connection nobody knows whether a call was done: it is made again, and happens once.
pub async fn a_repeated_write_changes_nothing<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let nameless =
        NewIncoming { message: Arc::new(Message::new(Headers::new(), "{}")), ..incoming(3, false) };
    let batch = WriteBatch {
        outgoing: vec![outgoing(1, false)],
        incoming: vec![incoming(2, false), nameless],
        ..WriteBatch::default()
    };
    let report = node.write(&batch).await;
    assert_eq!((report.outgoing, report.incoming), (vec![Stored::New], vec![Stored::New; 2]));
    let report = node.write(&batch).await;
    assert_eq!((report.outgoing, report.incoming), (vec![Stored::Duplicate], vec![Stored::Duplicate; 2]));
    assert_eq!(ids(&node.claim(Side::Outbox, 10).await.rows), [1]);
    assert_eq!(ids(&node.claim(Side::Inbox, 10).await.rows), [2, 3]);
}

/// If two nodes made the same row id for two messages, the second must not pass for a copy of the first: it would
/// be acknowledged and lost. The whole call fails, and nothing of it is stored.
pub async fn a_row_id_of_another_message_is_no_duplicate<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    node.insert(Side::Inbox, [1], false).await;
    let other = NewIncoming { message: message("another", "order.paid"), ..incoming(1, false) };
    let batch = WriteBatch { incoming: vec![incoming(2, false), other], ..WriteBatch::default() };
    let outcome = node.store.write(&node.owner, &batch).await;
    assert!(outcome.is_err(), "a message that is not stored is not reported as stored: {outcome:?}");
    assert_eq!(ids(&node.claim(Side::Inbox, 10).await.rows), [1]);
}

fn parked(id: i64, notify: bool) -> NewIncoming {
    NewIncoming {
        message: Arc::new(Message::new(Headers::new(), Bytes::from_static(b"\xff\xfe not json"))),
        entry: Entry::Parked {
            reason: Reason::MissingHeaders,
            error: "no id, no name".to_owned(),
            keep: Duration::from_hours(24),
            notify,
        },
        ..incoming(id, false)
    }
}

/// What nobody can handle is kept for an operator and never due by itself.
pub async fn parked_row_waits_for_an_operator<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    assert_eq!(node.receive(parked(1, false)).await, Stored::New);
    node.expect_nothing_due(Side::Inbox).await;
    let row = node.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::MissingHeaders)));
    assert_eq!(row.last_error.as_deref(), Some("no id, no name"));
    assert_eq!((row.name.as_str(), &*row.group, row.attempts), ("", GROUP, 0));
    assert_eq!((row.owner, row.due), (None, None));
    let keep = row.expires.expect("it is kept for a time").duration_since(row.added).unwrap();
    assert_eq!(keep.as_secs().div_ceil(60) * 60, 86_400, "for as long as was said");
    assert_eq!(node.attempts(Side::Inbox, 1).await, []);
}

/// If the node that parked a row dies before it has told anyone, another node tells.
pub async fn a_parked_row_with_notice_falls_to_another_node<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", SHORT).await, Node::open(fixture, "b", LONG).await);
    a.receive(parked(1, true)).await;
    assert_eq!(a.row(Side::Inbox, 1).await.owner.as_deref(), Some("a"));
    let claimed = b.claim_in_time(Side::Inbox, 1).await;
    assert_eq!(claimed[0].notice, Some((Reason::MissingHeaders, "no id, no name".to_owned())));
    assert!(
        !a.complete(Side::Inbox, first_lease(1), RowOutcome::Notified).await,
        "the first node has lost it"
    );
    assert!(b.complete(Side::Inbox, claimed[0].lease, RowOutcome::Notified).await);
    b.expect_nothing_due(Side::Inbox).await;
    assert_eq!(b.row(Side::Inbox, 1).await.status, Status::Failed);
}
