//! What a batch leaves in the tables, outcome by outcome.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::error::StorageErrorKind;
use cap_adapter::message::{Headers, Message};
use cap_adapter::monitor::Monitor as _;
use cap_adapter::storage::{
    Entry, Identity, Lease, NewIncoming, NewOutgoing, Owner, Reason, Retention, RowCompletion, RowOutcome,
    Side, Status, Storage as _, Stored, WriteBatch,
};

use super::SqlFixture;
use super::tables::{
    GROUP, Tables, delayed, first_lease, incoming, leased, leased_incoming, message, outgoing, owner,
};

fn failed(notify: bool, counted: bool) -> RowOutcome {
    let keep = Duration::from_secs(3600);
    RowOutcome::Failed { reason: Reason::Permanent, error: "no".to_owned(), counted, keep, notify }
}

/// New rows are free, leased or delayed.
pub async fn new_rows_have_status_owner_and_due<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let report = tables.publish(vec![outgoing(1), leased(2), delayed(3)]).await;
    assert_eq!(report.outgoing, [Stored::New; 3]);
    let (free, mine, later) = (
        tables.row(Side::Outbox, 1).await,
        tables.row(Side::Outbox, 2).await,
        tables.row(Side::Outbox, 3).await,
    );
    assert_eq!((free.status, free.owner, free.name.as_str()), (Status::Scheduled, None, "order.created"));
    assert_eq!((mine.status, mine.owner.as_deref()), (Status::Scheduled, Some("a")));
    assert_eq!((later.status, later.owner), (Status::Delayed, None));
    assert_eq!(tables.due_in("outbox_state", 1).await, 0);
    assert_eq!(tables.due_in("outbox_state", 2).await, 30);
    assert_eq!(tables.due_in("outbox_state", 3).await, 60);
    let epochs = "SELECT CAST(epoch AS bigint) FROM {t}outbox_state ORDER BY id";
    assert_eq!(tables.numbers(epochs).await, [0, 1, 0]);
}

/// A message that cannot be handled is stored as failed, leased if an operator is to be notified.
pub async fn parked_messages_are_failed_from_the_start<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let parked = |id, notify| NewIncoming {
        entry: Entry::Parked {
            reason: Reason::Undecodable,
            error: "not \0 JSON".to_owned(),
            keep: Duration::from_secs(3600),
            notify,
        },
        ..incoming(id)
    };
    tables.receive(vec![parked(1, false), parked(2, true)]).await;
    let (quiet, notified) = (tables.row(Side::Inbox, 1).await, tables.row(Side::Inbox, 2).await);
    assert_eq!((quiet.status, quiet.reason, quiet.due), (Status::Failed, Some(Reason::Undecodable), None));
    assert_eq!(quiet.last_error.as_deref(), Some("not \u{fffd} JSON"));
    assert!(quiet.expires.is_some() && quiet.attempts == 0);
    assert_eq!(notified.owner.as_deref(), Some("a"));
    assert_eq!(tables.due_in("inbox_state", 2).await, 30);
    assert!(tables.complete(Side::Inbox, first_lease(2), RowOutcome::Notified).await);
    let notified = tables.row(Side::Inbox, 2).await;
    assert_eq!((notified.status, notified.due, notified.owner), (Status::Failed, None, None));
    assert!(!tables.complete(Side::Inbox, first_lease(2), RowOutcome::Notified).await, "it is done once");
}

/// A message id enters the outbox once, and the inbox once for each group.
pub async fn duplicate_changes_nothing<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let again = |id, same: &str| NewOutgoing { message: message(same), ..outgoing(id) };
    let report = tables.publish(vec![outgoing(1), again(2, "guid"), again(3, "guid"), again(4, "1")]).await;
    assert_eq!(
        report.outgoing,
        [Stored::New, Stored::New, Stored::Duplicate, Stored::Duplicate],
        "one batch"
    );
    let report = tables.publish(vec![again(5, "guid"), again(6, "1"), outgoing(7)]).await;
    assert_eq!(report.outgoing, [Stored::Duplicate, Stored::Duplicate, Stored::New]);
    assert_eq!(tables.count("{t}outbox_state WHERE id IN (3, 4, 5, 6)").await, 0);

    let other = |id, same: &str, group: &str| NewIncoming {
        message: message(same),
        group: group.into(),
        ..incoming(id)
    };
    let report = tables.receive(vec![other(2, "x", "g"), other(1, "x", "g"), other(3, "x", "h")]).await;
    assert_eq!(report.incoming, [Stored::New, Stored::Duplicate, Stored::New], "the first in the batch wins");
    let report = tables.receive(vec![other(4, "x", "h"), other(5, "y", "h")]).await;
    assert_eq!(report.incoming, [Stored::Duplicate, Stored::New]);
    let nameless = |id| NewIncoming { message: Arc::new(Message::default()), ..incoming(id) };
    let report = tables.receive(vec![nameless(8), nameless(9)]).await;
    assert_eq!(report.incoming, [Stored::New, Stored::New], "without an id nothing collides");
}

/// A repeated batch is a duplicate; another message under a taken row id is refused.
pub async fn repeated_call_is_recognized_and_taken_id_refused<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let batch = WriteBatch {
        outgoing: vec![outgoing(1), leased(2)],
        incoming: vec![incoming(3)],
        ..WriteBatch::default()
    };
    tables.storage.write(&owner("a"), &batch).await.unwrap();
    let report = tables.storage.write(&owner("a"), &batch).await.unwrap();
    assert_eq!((report.outgoing, report.incoming), (vec![Stored::Duplicate; 2], vec![Stored::Duplicate]));

    let twice = tables.publish(vec![outgoing(4), outgoing(4), outgoing(1), outgoing(5)]).await;
    assert_eq!(twice.outgoing, [Stored::New, Stored::Duplicate, Stored::Duplicate, Stored::New]);

    let taken = NewOutgoing { message: message("other"), ..outgoing(1) };
    let batch = WriteBatch { outgoing: vec![outgoing(6), taken], ..WriteBatch::default() };
    let error = tables.storage.write(&owner("a"), &batch).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Refused);
    assert!(error.to_string().contains("row 1 "), "{error}");
    assert_eq!(tables.count("{t}outbox WHERE id = 6").await, 0, "the call is written whole or not at all");
}

/// Success forgets the state, keeps it, or deletes the message.
pub async fn success_leaves_what_the_retention_says<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.publish((1..=5).map(leased).collect()).await;
    let retry = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: "once".to_owned() };
    assert!(tables.complete(Side::Outbox, first_lease(3), retry).await);
    let done = |retention, reason| RowOutcome::Succeeded { retention, reason };
    let keep = Retention::Keep(Duration::from_secs(3600));
    let unrouted = Some(Reason::Unrouted);
    for (id, outcome) in [
        (1, done(Retention::Forget, None)),
        (2, done(keep, None)),
        (3, done(Retention::Delete, None)),
        (4, done(Retention::Forget, unrouted)),
        (5, done(Retention::Delete, unrouted)),
    ] {
        assert!(tables.complete(Side::Outbox, first_lease(id), outcome.clone()).await);
        assert!(!tables.complete(Side::Outbox, first_lease(id), outcome).await, "{id} twice");
    }
    let states = "SELECT id FROM {t}outbox_state WHERE status = 4 AND due IS NULL ORDER BY id";
    assert_eq!(tables.numbers(states).await, [2, 4, 5]);
    assert_eq!(tables.ids("outbox").await, [1, 2, 4, 5]);
    assert_eq!(tables.count("{t}attempts").await, 0);
    let kept = tables.row(Side::Outbox, 4).await;
    assert_eq!((kept.status, kept.reason, kept.expires), (Status::Succeeded, unrouted, None));
    assert!(tables.row(Side::Outbox, 2).await.expires.is_some());
    assert!(tables.row(Side::Outbox, 5).await.expires.is_some());
    assert_eq!(tables.row(Side::Outbox, 1).await.status, Status::Succeeded);
}

/// Each failed attempt is counted and recorded with its node and its error.
pub async fn failures_are_counted_and_recorded_in_order<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive(vec![leased_incoming(1)]).await;
    let retry = |hold, error: &str| RowOutcome::Retry {
        after: Duration::from_secs(60),
        hold,
        error: error.to_owned(),
    };
    assert!(tables.complete(Side::Inbox, first_lease(1), retry(true, "one")).await);
    let row = tables.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.attempts, row.owner.as_deref()), (Status::Retrying, 1, Some("a")));
    assert_eq!(tables.due_in("inbox_state", 1).await, 30, "still under its lease");

    assert!(tables.complete(Side::Inbox, first_lease(1), retry(false, "two \0")).await);
    let row = tables.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.attempts, row.owner), (Status::Retrying, 2, None));
    assert_eq!(tables.due_in("inbox_state", 1).await, 60);
    assert!(!tables.complete(Side::Inbox, first_lease(1), retry(false, "late")).await, "no node leases it");

    tables.let_time_pass().await;
    let lease = tables.claim(Side::Inbox).await[0].lease;
    assert!(tables.complete(Side::Inbox, lease, failed(true, true)).await);
    let row = tables.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.attempts, row.reason), (Status::Failed, 3, Some(Reason::Permanent)));
    assert!(row.expires.is_some() && row.owner.is_some());

    let attempts = tables.storage.attempts(Side::Inbox, 1).await.unwrap();
    let recorded: Vec<_> =
        attempts.iter().map(|one| (one.number, one.node.as_str(), one.error.as_str())).collect();
    assert_eq!(recorded, [(1, "a", "one"), (2, "a", "two \u{fffd}"), (3, "a", "no")]);
}

/// Several outcomes of one row in a batch apply one after the other.
pub async fn outcomes_of_one_row_apply_in_order<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.publish(vec![leased(1), leased(2)]).await;
    let row_completion =
        |id, outcome| RowCompletion { lease: first_lease(id), outcome, publishes: Vec::new() };
    let retry = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: "once".to_owned() };
    let done = RowOutcome::Succeeded { retention: Retention::Keep(Duration::from_secs(60)), reason: None };
    let report = tables
        .write(WriteBatch {
            completed_outgoing: vec![
                row_completion(1, retry.clone()),
                row_completion(2, failed(true, false)),
                row_completion(1, done),
                row_completion(2, RowOutcome::Notified),
                row_completion(1, retry),
            ],
            ..WriteBatch::default()
        })
        .await;
    assert_eq!(report.completed_outgoing, [true, true, true, true, false]);
    let row = tables.row(Side::Outbox, 1).await;
    assert_eq!((row.status, row.attempts, row.last_error.as_deref()), (Status::Succeeded, 1, Some("once")));
    let row = tables.row(Side::Outbox, 2).await;
    assert_eq!((row.status, row.attempts, row.due), (Status::Failed, 0, None));
}

/// A released row counts no attempt and keeps its place, or is due later.
pub async fn released_row_is_as_before<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive(vec![leased_incoming(1), leased_incoming(2)]).await;
    tables.execute("UPDATE {t}inbox SET added = added - {hour}").await;
    let release = |after| RowOutcome::Release { after: Duration::from_secs(after) };
    assert!(tables.complete(Side::Inbox, first_lease(1), release(0)).await);
    assert!(tables.complete(Side::Inbox, first_lease(2), release(60)).await);
    let row = tables.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.attempts, row.owner), (Status::Scheduled, 0, None));
    assert_eq!(tables.due_in("inbox_state", 1).await, -3600);
    assert_eq!(tables.due_in("inbox_state", 2).await, 60);
}

/// The longest spans of time are stored.
pub async fn no_span_of_time_is_too_long<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables
        .publish(vec![NewOutgoing { delay: Some(Duration::MAX), ..outgoing(1) }, leased(2), leased(3)])
        .await;
    let keep = RowOutcome::Succeeded { retention: Retention::Keep(Duration::MAX), reason: None };
    assert!(tables.complete(Side::Outbox, first_lease(2), keep).await);
    let retry = RowOutcome::Retry { after: Duration::MAX, hold: false, error: "x".to_owned() };
    assert!(tables.complete(Side::Outbox, first_lease(3), retry).await);
    assert_eq!(tables.row(Side::Outbox, 1).await.status, Status::Delayed);
    assert!(tables.row(Side::Outbox, 2).await.expires.is_some());
    assert!(tables.row(Side::Outbox, 3).await.due.is_some());
}

/// An outcome under a lost lease changes nothing, and what it publishes is not stored.
pub async fn lost_lease_completes_and_publishes_nothing<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive(vec![leased_incoming(1), leased_incoming(2)]).await;
    tables.execute("UPDATE {t}inbox_state SET due = due - {hour} WHERE id = 1").await;
    let taken = tables.claim(Side::Inbox).await[0].lease;
    assert_eq!(taken, Lease { id: 1, epoch: 2 });
    let done = || RowOutcome::Succeeded { retention: Retention::Forget, reason: None };
    let row_completion = |lease, id| RowCompletion { lease, outcome: done(), publishes: vec![leased(id)] };
    let report = tables
        .write(WriteBatch {
            completed_incoming: vec![row_completion(first_lease(1), 11), row_completion(first_lease(2), 12)],
            ..WriteBatch::default()
        })
        .await;
    assert_eq!(report.completed_incoming, [false, true]);
    assert_eq!([tables.ids("outbox").await, tables.ids("outbox_state").await], [[12], [12]]);
    assert!(tables.complete(Side::Inbox, taken, done()).await);
}

/// A batch with one refused message is not written.
pub async fn batch_is_written_whole_or_not_at_all<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive(vec![leased_incoming(1)]).await;
    let long = NewOutgoing { message: message(&"x".repeat(201)), ..outgoing(2) };
    let batch = WriteBatch {
        outgoing: vec![outgoing(3)],
        completed_incoming: vec![RowCompletion {
            lease: first_lease(1),
            outcome: RowOutcome::Succeeded { retention: Retention::Forget, reason: None },
            publishes: vec![long],
        }],
        ..WriteBatch::default()
    };
    let error = tables.storage.write(&owner("a"), &batch).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Refused);
    assert_eq!(tables.count("{t}outbox").await, 0);
    assert_eq!(tables.row(Side::Inbox, 1).await.status, Status::Scheduled);
}

/// A text that does not fit its column is refused, and the error names the column.
pub async fn unstorable_text_is_refused_by_name<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let named = |name: &str| {
        let headers: Headers = [("cap-msg-id", "1"), ("cap-msg-name", name)].into_iter().collect();
        NewOutgoing { message: Arc::new(Message::new(headers, &b""[..])), ..outgoing(1) }
    };
    let grouped = |group: &str| NewIncoming { group: group.into(), ..incoming(1) };
    let (out, inc) = (
        |new| WriteBatch { outgoing: vec![new], ..WriteBatch::default() },
        |new| WriteBatch { incoming: vec![new], ..WriteBatch::default() },
    );
    for (what, batch) in [
        ("topic", out(named(&"ü".repeat(201)))),
        ("topic", out(named("a\0b"))),
        ("message id", out(NewOutgoing { message: message(&"1".repeat(201)), ..outgoing(1) })),
        ("group", inc(grouped(&"g".repeat(201)))),
        ("group", inc(grouped("g\0"))),
    ] {
        let error = tables.storage.write(&owner("a"), &batch).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    tables.storage.write(&owner("a"), &out(named(&"ü".repeat(200)))).await.unwrap();
    let odd = Owner { version: "x".repeat(21).into(), ..owner("a") };
    let error = tables.storage.write(&odd, &out(outgoing(2))).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Refused, "{error}");
}

/// Bodies of any bytes and headers of any text are read as they were written.
pub async fn any_body_and_header_is_read_as_written<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let mut headers: Headers =
        [("cap-msg-id", "1"), ("nul", "a\0b"), ("", "odd"), ("q\"\\", "\u{1F980} ü \\u0000")]
            .into_iter()
            .collect();
    headers.insert_null("cap-callback-name");
    let large = vec![7; 300_000];
    let bodies: [&[u8]; 4] = [b"", b"\0\xff\xfe", b"{\"a\":1}", &large];
    for (id, body) in (1..).zip(bodies) {
        headers.insert("cap-msg-id", id.to_string());
        let message = Arc::new(Message::new(headers.clone(), body.to_vec()));
        let entry = Entry::Scheduled { held: false };
        tables
            .receive(vec![NewIncoming {
                id,
                group: GROUP.into(),
                message: Arc::clone(&message),
                entry,
                identity: Identity::default(),
            }])
            .await;
        let claimed = tables.claim(Side::Inbox).await;
        assert_eq!(claimed[0].message, message);
        assert_eq!(tables.row(Side::Inbox, id).await.message, message);
    }
}

/// Writers of the same messages in different orders all succeed, and each message is new once.
pub async fn writers_of_the_same_messages_do_not_deadlock<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let tasks: Vec<_> = (0..6)
        .map(|task: i64| {
            let storage = Arc::clone(&tables.storage);
            tokio::spawn(async move {
                let mut new = 0;
                for round in 0..10 {
                    let mut rows: Vec<_> = (0..40)
                        .map(|n: i64| NewIncoming {
                            message: message(&format!("{round}-{n}")),
                            ..incoming(1 + n + 40 * (round + 10 * task))
                        })
                        .collect();
                    // Each task has another order.
                    rows.rotate_left(usize::try_from(task * 7 + round * 3).unwrap() % 40);
                    if task % 2 == 1 {
                        rows.reverse();
                    }
                    let batch = WriteBatch { incoming: rows, ..WriteBatch::default() };
                    let report = storage.write(&owner("a"), &batch).await.unwrap();
                    new += report.incoming.iter().filter(|stored| **stored == Stored::New).count();
                }
                new
            })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += task.await.unwrap();
    }
    assert_eq!(new, 400, "each message is new once");
    assert_eq!(tables.count("{t}inbox_state").await, 400);
}
