//! Two messages under one id: what is the same message again, and what another one. Issue 9, row 1.

use std::sync::Arc;

use cap_adapter::message::Message;
use cap_adapter::monitor::Change;
use cap_adapter::storage::{
    Digest, Entry, Identity, NewIncoming, Reason, Retention, RowOutcome, Side, Status, Stored, WriteBatch,
};
use futures_util::future::join_all;

use super::StorageFixture;
use super::node::{GROUP, LONG, NOTHING, Node, SHORT, first_lease, ids, incoming, message, succeeded};

const BODIES: [&str; 3] = ["the real one", "a hostile twin", "another twin"];

/// A message under the id `m`, with one of the bodies.
fn says(id: i64, body: &str) -> NewIncoming {
    let headers = message("m", "order.created").headers.clone();
    NewIncoming {
        message: Arc::new(Message::new(headers, body.to_owned())),
        identity: Identity::new(Digest::of("order.created", body.as_bytes(), None)),
        ..incoming(id, true)
    }
}

/// The same, as it is stored when it has met another.
fn apart(id: i64, body: &str) -> NewIncoming {
    let row = parked(id, body, Reason::IdConflict);
    NewIncoming { identity: Identity { apart: true, ..row.identity }, ..row }
}

fn parked(id: i64, body: &str, reason: Reason) -> NewIncoming {
    let entry = Entry::Parked { reason, error: "no".to_owned(), keep: LONG, notify: false };
    NewIncoming { entry, ..says(id, body) }
}

fn all(incoming: Vec<NewIncoming>) -> WriteBatch {
    WriteBatch { incoming, ..WriteBatch::default() }
}

/// A message whose id another one has is not taken for that one, be it handled already or not.
pub async fn another_message_is_no_duplicate<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    assert_eq!(a.receive(says(1, BODIES[0])).await, Stored::New);
    assert_eq!(b.receive(says(2, BODIES[1])).await, Stored::Conflict);
    assert!(a.complete(Side::Inbox, first_lease(1), succeeded(Retention::Forget)).await);
    assert_eq!(b.receive(says(3, BODIES[1])).await, Stored::Conflict, "also when the first is done");
    assert_eq!(b.receive(says(4, BODIES[0])).await, Stored::Duplicate);
    for id in 2..=4 {
        assert!(a.get(Side::Inbox, id).await.is_none(), "row {id} is not stored");
    }
    let elsewhere = NewIncoming { group: "another".into(), ..says(5, BODIES[1]) };
    assert_eq!(b.receive(elsewhere).await, Stored::New, "each group has its own");
}

/// A row without a digest, as an older node stores it, counts as the same; so does a message without one.
pub async fn a_row_without_digest_is_the_same<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let plain = |id, body| NewIncoming { identity: Identity::default(), ..says(id, body) };
    assert_eq!(node.receive(plain(1, BODIES[0])).await, Stored::New);
    assert_eq!(node.receive(says(2, BODIES[1])).await, Stored::Duplicate);
    let other = |id, body| NewIncoming { group: "another".into(), ..says(id, body) };
    assert_eq!(node.receive(other(3, BODIES[0])).await, Stored::New);
    let plain = NewIncoming { identity: Identity::default(), ..other(4, BODIES[1]) };
    assert_eq!(node.receive(plain).await, Stored::Duplicate);
}

/// What is stored apart is stored once for each message, found again at each delivery, and run when an operator says so.
pub async fn a_conflict_is_stored_apart_once<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    assert_eq!(node.receive(says(1, BODIES[0])).await, Stored::New);
    assert!(node.complete(Side::Inbox, first_lease(1), succeeded(Retention::Forget)).await);
    for (id, body) in [(2, BODIES[1]), (3, BODIES[2])] {
        assert_eq!(node.receive(says(10 + id, body)).await, Stored::Conflict);
        assert_eq!(node.receive(apart(id, body)).await, Stored::New);
        assert_eq!(node.receive(apart(20 + id, body)).await, Stored::Duplicate);
        assert_eq!(node.receive(says(30 + id, body)).await, Stored::Duplicate, "delivered again");
    }
    assert_eq!(node.receive(says(40, BODIES[0])).await, Stored::Duplicate);
    let row = node.row(Side::Inbox, 2).await;
    assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::IdConflict)));
    assert_eq!((row.message.id(), &row.message.body[..]), (Some("m"), BODIES[1].as_bytes()));
    node.expect_nothing_due(Side::Inbox).await;
    assert_eq!(node.rerun(Side::Inbox, &[2]).await, [2]);
    assert_eq!(ids(&node.claim(Side::Inbox, 10).await.rows), [2]);
}

/// Invalid input that was parked on receipt gives up its id, and stays parked.
pub async fn garbage_makes_way<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for (first, reason) in [(1, Reason::MissingHeaders), (11, Reason::NoSubscriber), (21, Reason::Corrupt)] {
        let group = |row: NewIncoming| NewIncoming { group: reason.as_str().into(), ..row };
        assert_eq!(node.receive(group(parked(first, BODIES[1], reason))).await, Stored::New);
        assert_eq!(node.receive(group(says(first + 1, BODIES[0]))).await, Stored::New, "{reason:?}");
        assert_eq!(node.receive(group(says(first + 2, BODIES[0]))).await, Stored::Duplicate);
        assert_eq!(node.receive(group(parked(first + 3, BODIES[1], reason))).await, Stored::Duplicate);
        let garbage = node.row(Side::Inbox, first).await;
        assert_eq!((garbage.status, garbage.reason), (Status::Failed, Some(reason)));
        assert_eq!(&garbage.message.body[..], BODIES[1].as_bytes());
        let real = node.row(Side::Inbox, first + 1).await;
        assert_eq!((real.status, real.owner.as_deref()), (Status::Scheduled, Some("a")));
    }
    assert_eq!(node.rerun(Side::Inbox, &[1]).await, [1], "it can still be run");
}

/// A body that no handler could read makes way, too: to find that out counts as the only attempt.
pub async fn what_could_not_be_read_makes_way<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    assert_eq!(node.receive(says(1, BODIES[1])).await, Stored::New);
    let unread = RowOutcome::Failed {
        reason: Reason::Undecodable,
        error: "not JSON".to_owned(),
        counted: true,
        keep: LONG,
        notify: false,
    };
    assert!(node.complete(Side::Inbox, first_lease(1), unread).await);
    assert_eq!(node.receive(says(2, BODIES[0])).await, Stored::New);
    assert_eq!(node.row(Side::Inbox, 1).await.status, Status::Failed);
}

/// What a handler has seen does not make way: what failed, what was run again, what another node has claimed.
pub async fn what_was_handled_does_not_make_way<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", SHORT).await);
    let group = |name: &str, row: NewIncoming| NewIncoming { group: name.into(), ..row };
    a.receive(group("failed", says(1, BODIES[1]))).await;
    assert!(a.complete(Side::Inbox, first_lease(1), super::node::failed(false)).await);
    a.receive(group("run again", parked(2, BODIES[1], Reason::NoSubscriber))).await;
    assert_eq!(a.rerun(Side::Inbox, &[2]).await, [2]);
    a.receive(group("under way", says(3, BODIES[1]))).await;
    b.receive(NewIncoming { entry: Entry::Scheduled { held: false }, ..says(4, BODIES[1]) }).await;
    for (id, name) in [(11, "failed"), (12, "run again"), (13, "under way"), (14, GROUP)] {
        assert_eq!(a.receive(group(name, says(id, BODIES[0]))).await, Stored::Conflict, "{name}");
    }
}

/// The first of a batch has the id; garbage among them makes way for what follows.
pub async fn twins_inside_one_batch<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let batch = all(vec![says(1, BODIES[0]), says(2, BODIES[1]), says(3, BODIES[0]), says(4, BODIES[2])]);
    assert_eq!(
        node.write(&batch).await.incoming,
        [Stored::New, Stored::Conflict, Stored::Duplicate, Stored::Conflict]
    );
    let other = |row: NewIncoming| NewIncoming { group: "another".into(), ..row };
    let batch = all(vec![
        other(parked(5, BODIES[1], Reason::NoSubscriber)),
        other(says(6, BODIES[0])),
        other(parked(7, BODIES[2], Reason::NoSubscriber)),
        other(parked(8, BODIES[1], Reason::NoSubscriber)),
    ]);
    assert_eq!(
        node.write(&batch).await.incoming,
        [Stored::New, Stored::New, Stored::Conflict, Stored::Duplicate]
    );
    assert_eq!(node.row(Side::Inbox, 5).await.status, Status::Failed);
    assert_eq!(node.row(Side::Inbox, 6).await.status, Status::Scheduled);
    let batch = all(vec![apart(9, BODIES[1]), apart(10, BODIES[2]), apart(11, BODIES[1])]);
    assert_eq!(node.write(&batch).await.incoming, [Stored::New, Stored::New, Stored::Duplicate]);
}

/// Two nodes get different messages under one id at the same time: one of them has the id, the other gets `Conflict`.
pub async fn twins_at_the_same_time<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for round in 0..10_i64 {
        let group = |row: NewIncoming| NewIncoming { group: format!("round-{round}").into(), ..row };
        let is_garbage_first = round % 2 == 0;
        if is_garbage_first {
            assert_eq!(a.receive(group(parked(round * 10 + 9, "x", Reason::Corrupt))).await, Stored::New);
        }
        let writers = (0..6_i64).map(async |number| {
            let node = if number % 2 == 0 { &a } else { &b };
            let body = BODIES[usize::try_from(number % 2).unwrap()];
            (number % 2, node.receive(group(says(round * 10 + number, body))).await)
        });
        let answers = join_all(writers).await;
        let new: Vec<_> = answers.iter().filter(|(_, stored)| *stored == Stored::New).collect();
        assert_eq!(new.len(), 1, "{answers:?}");
        for (body, stored) in &answers {
            let same = *body == new[0].0;
            let is_right = if same { *stored != Stored::Conflict } else { *stored == Stored::Conflict };
            assert!(is_right, "{answers:?}");
        }
    }
}

/// A write that is repeated after a lost answer does not meet itself.
pub async fn a_repeated_take_over_changes_nothing<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    assert_eq!(node.receive(parked(1, BODIES[1], Reason::NoSubscriber)).await, Stored::New);
    let batch = all(vec![says(2, BODIES[0])]);
    assert_eq!(node.write(&batch).await.incoming, [Stored::New]);
    assert_eq!(node.write(&batch).await.incoming, [Stored::Duplicate]);
    let batch = all(vec![parked(1, BODIES[1], Reason::NoSubscriber), says(2, BODIES[0])]);
    assert_eq!(node.write(&batch).await.incoming, [Stored::Duplicate; 2]);
    assert!(node.complete(Side::Inbox, first_lease(2), succeeded(Retention::Forget)).await);
    assert_eq!(ids(&node.claim(Side::Inbox, 10).await.rows), NOTHING);
}

/// A message that an operator has changed is still the one that it was.
pub async fn an_edited_message_is_still_the_same<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    node.receive(says(1, BODIES[0])).await;
    assert!(node.complete(Side::Inbox, first_lease(1), super::node::failed(false)).await);
    let change = Change { audit: None, body: Some(BODIES[1].into()) };
    assert_eq!(node.rerun_changed(Side::Inbox, &[1], &change).await, [1]);
    assert_eq!(node.receive(says(2, BODIES[0])).await, Stored::Duplicate);
    assert_eq!(node.receive(says(3, BODIES[1])).await, Stored::Conflict);
}
