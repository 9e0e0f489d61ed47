//! What a batch leaves in the tables, outcome by outcome.

use std::sync::Arc;
use std::time::Duration;

use cap_core::error::StorageErrorKind;
use cap_core::message::{Headers, Message};
use cap_core::monitor::{Monitor as _, Row};
use cap_core::storage::{
    Entry, Identity, Lease, NewIncoming, NewOutgoing, Reason, Retention, RowCompletion, RowOutcome, Side,
    Status, Storage as _, Stored, WriteBatch,
};

use crate::support::{
    Database, GROUP, delayed, first_lease, held, held_incoming, incoming, message, outgoing, owner,
};

impl Database {
    async fn row(&self, side: Side, id: i64) -> Row {
        self.storage.get(side, id).await.unwrap().unwrap()
    }

    /// How long until the row is due, in whole seconds.
    async fn due_in(&self, states: &str, id: i64) -> i64 {
        let query = "SELECT CAST(round((due / 1e6 - unixepoch('subsec')) / 5) AS INTEGER) * 5 FROM cap_{t} WHERE id = {id}";
        self.count(&query.replace("{t}", states).replace("{id}", &id.to_string())).await
    }
}

fn failed(notify: bool, counted: bool) -> RowOutcome {
    let keep = Duration::from_secs(3600);
    RowOutcome::Failed { reason: Reason::Permanent, error: "no".to_owned(), counted, keep, notify }
}

#[tokio::test]
async fn inserts_stand_as_they_were_meant() {
    let database = Database::new().await;
    let report = database.publish(vec![outgoing(1), held(2), delayed(3)]).await;
    assert_eq!(report.outgoing, [Stored::New; 3]);
    let (free, mine, later) = (
        database.row(Side::Outbox, 1).await,
        database.row(Side::Outbox, 2).await,
        database.row(Side::Outbox, 3).await,
    );
    assert_eq!((free.status, free.owner, free.name.as_str()), (Status::Scheduled, None, "order.created"));
    assert_eq!((mine.status, mine.owner.as_deref()), (Status::Scheduled, Some("a")));
    assert_eq!((later.status, later.owner), (Status::Delayed, None));
    assert_eq!(database.due_in("outbox_state", 1).await, 0);
    assert_eq!(database.due_in("outbox_state", 2).await, 30);
    assert_eq!(database.due_in("outbox_state", 3).await, 60);
    assert_eq!(
        database
            .text("SELECT coalesce(group_concat(epoch, ' ' ORDER BY id), '') FROM cap_outbox_state")
            .await,
        "0 1 0"
    );
}

#[tokio::test]
async fn parked_messages_are_failed_from_the_start() {
    let database = Database::new().await;
    let parked = |id, notify| NewIncoming {
        entry: Entry::Parked {
            reason: Reason::Undecodable,
            error: "not \0 JSON".to_owned(),
            keep: Duration::from_secs(3600),
            notify,
        },
        ..incoming(id)
    };
    database.receive(vec![parked(1, false), parked(2, true)]).await;
    let (quiet, told) = (database.row(Side::Inbox, 1).await, database.row(Side::Inbox, 2).await);
    assert_eq!((quiet.status, quiet.reason, quiet.due), (Status::Failed, Some(Reason::Undecodable), None));
    assert_eq!(quiet.last_error.as_deref(), Some("not \u{fffd} JSON"));
    assert!(quiet.expires.is_some() && quiet.attempts == 0);
    assert_eq!(told.owner.as_deref(), Some("a"));
    assert_eq!(database.due_in("inbox_state", 2).await, 30);
    assert!(database.complete(Side::Inbox, first_lease(2), RowOutcome::Notified).await);
    let told = database.row(Side::Inbox, 2).await;
    assert_eq!((told.status, told.due, told.owner), (Status::Failed, None, None));
    assert!(!database.complete(Side::Inbox, first_lease(2), RowOutcome::Notified).await, "said once");
}

#[tokio::test]
async fn a_message_that_was_there_before_changes_nothing() {
    let database = Database::new().await;
    let again = |id, same: &str| NewOutgoing { message: message(same), ..outgoing(id) };
    let report = database.publish(vec![outgoing(1), again(2, "guid"), again(3, "guid"), again(4, "1")]).await;
    assert_eq!(
        report.outgoing,
        [Stored::New, Stored::New, Stored::Duplicate, Stored::Duplicate],
        "one batch"
    );
    let report = database.publish(vec![again(5, "guid"), again(6, "1"), outgoing(7)]).await;
    assert_eq!(report.outgoing, [Stored::Duplicate, Stored::Duplicate, Stored::New]);
    assert_eq!(database.count("SELECT count(*) FROM cap_outbox_state WHERE id IN (3, 4, 5, 6)").await, 0);

    let other = |id, same: &str, group: &str| NewIncoming {
        message: message(same),
        group: group.into(),
        ..incoming(id)
    };
    let report = database.receive(vec![other(2, "x", "g"), other(1, "x", "g"), other(3, "x", "h")]).await;
    assert_eq!(report.incoming, [Stored::New, Stored::Duplicate, Stored::New], "the first in the batch wins");
    let report = database.receive(vec![other(4, "x", "h"), other(5, "y", "h")]).await;
    assert_eq!(report.incoming, [Stored::Duplicate, Stored::New]);
    let nameless = |id| NewIncoming { message: Arc::new(Message::default()), ..incoming(id) };
    let report = database.receive(vec![nameless(8), nameless(9)]).await;
    assert_eq!(report.incoming, [Stored::New, Stored::New], "without an id nothing collides");
}

#[tokio::test]
async fn a_repeated_call_is_recognised_and_a_taken_row_id_refused() {
    let database = Database::new().await;
    let batch = WriteBatch {
        outgoing: vec![outgoing(1), held(2)],
        incoming: vec![incoming(3)],
        ..WriteBatch::default()
    };
    database.storage.write(&owner("a"), &batch).await.unwrap();
    let report = database.storage.write(&owner("a"), &batch).await.unwrap();
    assert_eq!((report.outgoing, report.incoming), (vec![Stored::Duplicate; 2], vec![Stored::Duplicate]));

    let twice = database.publish(vec![outgoing(4), outgoing(4), outgoing(1), outgoing(5)]).await;
    assert_eq!(twice.outgoing, [Stored::New, Stored::Duplicate, Stored::Duplicate, Stored::New]);

    let taken = NewOutgoing { message: message("other"), ..outgoing(1) };
    let batch = WriteBatch { outgoing: vec![outgoing(6), taken], ..WriteBatch::default() };
    let error = database.storage.write(&owner("a"), &batch).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Refused);
    assert!(error.to_string().contains("row 1 "), "{error}");
    assert_eq!(
        database.count("SELECT count(*) FROM cap_outbox WHERE id = 6").await,
        0,
        "the call happens whole"
    );
}

#[tokio::test]
async fn success_leaves_what_the_retention_says() {
    let database = Database::new().await;
    database.publish((1..=5).map(held).collect()).await;
    let retry = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: "once".to_owned() };
    assert!(database.complete(Side::Outbox, first_lease(3), retry).await);
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
        assert!(database.complete(Side::Outbox, first_lease(id), outcome.clone()).await);
        assert!(!database.complete(Side::Outbox, first_lease(id), outcome).await, "{id} twice");
    }
    let states = "SELECT coalesce(group_concat(id, ' ' ORDER BY id), '') FROM cap_outbox_state WHERE status = 4 AND due IS NULL";
    assert_eq!(database.text(states).await, "2 4 5");
    let messages = "SELECT coalesce(group_concat(id, ' ' ORDER BY id), '') FROM cap_outbox";
    assert_eq!(database.text(messages).await, "1 2 4 5");
    assert_eq!(database.count("SELECT count(*) FROM cap_attempts").await, 0);
    let kept = database.row(Side::Outbox, 4).await;
    assert_eq!((kept.status, kept.reason, kept.expires), (Status::Succeeded, unrouted, None));
    assert!(database.row(Side::Outbox, 2).await.expires.is_some());
    assert!(database.row(Side::Outbox, 5).await.expires.is_some());
    assert_eq!(database.row(Side::Outbox, 1).await.status, Status::Succeeded);
}

#[tokio::test]
async fn failures_are_counted_and_recorded_in_order() {
    let database = Database::new().await;
    database.receive(vec![held_incoming(1)]).await;
    let retry = |hold, error: &str| RowOutcome::Retry {
        after: Duration::from_secs(60),
        hold,
        error: error.to_owned(),
    };
    assert!(database.complete(Side::Inbox, first_lease(1), retry(true, "one")).await);
    let row = database.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.attempts, row.owner.as_deref()), (Status::Retrying, 1, Some("a")));
    assert_eq!(database.due_in("inbox_state", 1).await, 30, "still under its lease");

    assert!(database.complete(Side::Inbox, first_lease(1), retry(false, "two \0")).await);
    let row = database.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.attempts, row.owner), (Status::Retrying, 2, None));
    assert_eq!(database.due_in("inbox_state", 1).await, 60);
    assert!(!database.complete(Side::Inbox, first_lease(1), retry(false, "late")).await, "nobody holds it");

    database.let_time_pass().await;
    let lease = database.claim(Side::Inbox).await[0].lease;
    assert!(database.complete(Side::Inbox, lease, failed(true, true)).await);
    let row = database.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.attempts, row.reason), (Status::Failed, 3, Some(Reason::Permanent)));
    assert!(row.expires.is_some() && row.owner.is_some());

    let attempts = database.storage.attempts(Side::Inbox, 1).await.unwrap();
    let told: Vec<_> =
        attempts.iter().map(|one| (one.number, one.node.as_str(), one.error.as_str())).collect();
    assert_eq!(told, [(1, "a", "one"), (2, "a", "two \u{fffd}"), (3, "a", "no")]);
}

#[tokio::test]
async fn several_words_about_one_row_are_heard_in_their_order() {
    let database = Database::new().await;
    database.publish(vec![held(1), held(2)]).await;
    let row_completion =
        |id, outcome| RowCompletion { lease: first_lease(id), outcome, publishes: Vec::new() };
    let retry = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: "once".to_owned() };
    let done = RowOutcome::Succeeded { retention: Retention::Keep(Duration::from_secs(60)), reason: None };
    let report = database
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
    let row = database.row(Side::Outbox, 1).await;
    assert_eq!((row.status, row.attempts, row.last_error.as_deref()), (Status::Succeeded, 1, Some("once")));
    let row = database.row(Side::Outbox, 2).await;
    assert_eq!((row.status, row.attempts, row.due), (Status::Failed, 0, None));
}

#[tokio::test]
async fn what_is_given_back_is_as_it_was() {
    let database = Database::new().await;
    database.receive(vec![held_incoming(1), held_incoming(2)]).await;
    database.execute("UPDATE cap_inbox SET added = added - 600000000").await;
    let release = |after| RowOutcome::Release { after: Duration::from_secs(after) };
    assert!(database.complete(Side::Inbox, first_lease(1), release(0)).await);
    assert!(database.complete(Side::Inbox, first_lease(2), release(60)).await);
    let row = database.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.attempts, row.owner), (Status::Scheduled, 0, None));
    assert_eq!(database.due_in("inbox_state", 1).await, -600);
    assert_eq!(database.due_in("inbox_state", 2).await, 60);
}

#[tokio::test]
async fn no_span_of_time_is_too_long() {
    let database = Database::new().await;
    database.publish(vec![NewOutgoing { delay: Some(Duration::MAX), ..outgoing(1) }, held(2), held(3)]).await;
    let keep = RowOutcome::Succeeded { retention: Retention::Keep(Duration::MAX), reason: None };
    assert!(database.complete(Side::Outbox, first_lease(2), keep).await);
    let retry = RowOutcome::Retry { after: Duration::MAX, hold: false, error: "x".to_owned() };
    assert!(database.complete(Side::Outbox, first_lease(3), retry).await);
    assert_eq!(database.row(Side::Outbox, 1).await.status, Status::Delayed);
    assert!(database.row(Side::Outbox, 2).await.expires.is_some());
    assert!(database.row(Side::Outbox, 3).await.due.is_some());
}

#[tokio::test]
async fn a_lost_lease_says_nothing_and_publishes_nothing() {
    let database = Database::new().await;
    database.receive(vec![held_incoming(1), held_incoming(2)]).await;
    database.execute("UPDATE cap_inbox_state SET due = due - 3600000000 WHERE id = 1").await;
    let taken = database.claim(Side::Inbox).await[0].lease;
    assert_eq!(taken, Lease { id: 1, epoch: 2 });
    let done = || RowOutcome::Succeeded { retention: Retention::Forget, reason: None };
    let row_completion = |lease, id| RowCompletion { lease, outcome: done(), publishes: vec![held(id)] };
    let report = database
        .write(WriteBatch {
            completed_incoming: vec![row_completion(first_lease(1), 11), row_completion(first_lease(2), 12)],
            ..WriteBatch::default()
        })
        .await;
    assert_eq!(report.completed_incoming, [false, true]);
    let published =
        "SELECT coalesce(group_concat(id, ' '), '') FROM cap_outbox JOIN cap_outbox_state USING (id)";
    assert_eq!(database.text(published).await, "12");
    assert!(database.complete(Side::Inbox, taken, done()).await);
}

#[tokio::test]
async fn a_batch_happens_whole_or_not_at_all() {
    let database = Database::new().await;
    database.receive(vec![held_incoming(1)]).await;
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
    let error = database.storage.write(&owner("a"), &batch).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Refused);
    assert_eq!(database.count("SELECT count(*) FROM cap_outbox").await, 0);
    assert_eq!(database.row(Side::Inbox, 1).await.status, Status::Scheduled);
}

#[tokio::test]
async fn what_no_column_can_hold_is_refused_by_name() {
    let database = Database::new().await;
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
        let error = database.storage.write(&owner("a"), &batch).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    database.storage.write(&owner("a"), &out(named(&"ü".repeat(200)))).await.unwrap();
    let odd = cap_core::storage::Owner { version: "x".repeat(21).into(), ..owner("a") };
    let error = database.storage.write(&odd, &out(outgoing(2))).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn any_bytes_and_any_header_come_back_as_they_were() {
    let database = Database::new().await;
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
        database
            .receive(vec![NewIncoming {
                id,
                group: GROUP.into(),
                message: Arc::clone(&message),
                entry,
                identity: Identity::default(),
            }])
            .await;
        let claimed = database.claim(Side::Inbox).await;
        assert_eq!(claimed[0].message, message);
        assert_eq!(database.row(Side::Inbox, id).await.message, message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_with_the_same_messages_do_not_stand_in_each_others_way() {
    let database = Arc::new(Database::new().await);
    let tasks: Vec<_> = (0..6)
        .map(|task: i64| {
            let database = Arc::clone(&database);
            tokio::spawn(async move {
                let mut new = 0;
                for round in 0..10 {
                    let mut rows: Vec<_> = (0..40)
                        .map(|n: i64| NewIncoming {
                            message: message(&format!("{round}-{n}")),
                            ..incoming(1 + n + 40 * (round + 10 * task))
                        })
                        .collect();
                    fastrand::shuffle(&mut rows);
                    let report = database.receive(rows).await;
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
    assert_eq!(database.count("SELECT count(*) FROM cap_inbox_state").await, 400);
}
