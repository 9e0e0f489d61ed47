//! Issue 8, row 9: databases of other encodings than UTF8.

use std::sync::Arc;

use cap_core::error::StorageErrorKind;
use cap_core::message::{Headers, Message};
use cap_core::monitor::{Monitor as _, Query};
use cap_core::storage::{
    ClaimRequest, Entry, NewIncoming, NewOutgoing, Reason, RowCompletion, RowOutcome, Side, Storage as _,
    Stored, WriteBatch,
};
use cap_postgres::Postgres;

use crate::support::{GROUP, OwnDatabase, held, held_incoming, incoming, owner};

const ENCODINGS: [&str; 3] = ["LATIN1", "WIN1252", "SQL_ASCII"];

async fn database(encoding: &str) -> (OwnDatabase, Postgres) {
    let how = format!("ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    let database = OwnDatabase::with(&how).await;
    let storage = Postgres::new(database.pool.clone()).schema("cap").connections(2);
    storage.initialize().await.unwrap();
    (database, storage)
}

fn message(id: &str, name: &str) -> Arc<Message> {
    let headers: Headers =
        [("cap-msg-id", id), ("cap-msg-name", name), ("who", "\u{416}\u{e9}\u{1f600}")].into_iter().collect();
    Arc::new(Message::new(headers, &b"{}"[..]))
}

#[tokio::test]
async fn headers_come_back_as_they_were_and_views_show_them() {
    for encoding in ENCODINGS {
        let (database, storage) = database(encoding).await;
        let batch = WriteBatch {
            outgoing: vec![NewOutgoing { message: message("1", "n"), ..held(1) }],
            incoming: vec![NewIncoming { message: message("1", "n"), ..incoming(1) }],
            ..WriteBatch::default()
        };
        let report = storage.write(&owner("a"), &batch).await.unwrap();
        assert_eq!((report.outgoing, report.incoming), (vec![Stored::New], vec![Stored::New]), "{encoding}");
        // The same once more, as after a lost answer.
        storage.write(&owner("a"), &batch).await.unwrap();
        let request = ClaimRequest::new(Side::Inbox, vec![GROUP.into()], 10);
        let claimed = storage.claim(&owner("a"), &request).await.unwrap().rows;
        assert_eq!(claimed[0].message.headers, message("1", "n").headers, "{encoding}");
        for view in ["published", "received"] {
            let content: String =
                sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT \"Content\" FROM cap.{view}")))
                    .fetch_one(&database.pool)
                    .await
                    .unwrap();
            assert!(content.contains(r#""who":"\u0416\u00E9\uD83D\uDE00""#), "{encoding}: {content}");
        }
    }
}

/// What could be handled is refused with its id or name, and stored when it comes back to be parked: nothing else
/// is kept from being stored.
#[tokio::test]
async fn only_what_does_not_fit_is_replaced_and_parked() {
    for encoding in ["LATIN1", "WIN1252"] {
        let (_database, storage) = database(encoding).await;
        let parked = |id, message| NewIncoming {
            entry: Entry::Parked {
                reason: Reason::Corrupt,
                error: "broken: \u{416}\u{f6}".into(),
                keep: std::time::Duration::from_secs(60),
                notify: false,
            },
            message,
            ..incoming(id)
        };
        let awkward = |n: i64, message: Arc<Message>| NewIncoming { message, ..held_incoming(n) };
        let one = WriteBatch { incoming: vec![awkward(1, message("\u{416}", "n"))], ..WriteBatch::default() };
        assert!(storage.write(&owner("a"), &one).await.unwrap_err().is_refused());
        let rows = vec![
            parked(1, message("\u{416}", "n")),
            parked(2, message("\u{417}", "gr\u{f6}\u{df}e.\u{416}")),
            incoming(3),
        ];
        let batch = WriteBatch { incoming: rows, ..WriteBatch::default() };
        let report = storage.write(&owner("a"), &batch).await.unwrap();
        assert_eq!(report.incoming, [Stored::New; 3], "two ids are never replaced by one");
        let row = storage.get(Side::Inbox, 2).await.unwrap().unwrap();
        assert_eq!(row.name, "gr\u{f6}\u{df}e.?");
        assert_eq!(row.last_error.as_deref(), Some("broken: \\u0416\u{f6}"));
        assert_eq!(row.message.id(), Some("\u{417}"), "the headers have what it was");
        // Once more, as when the broker delivers it again.
        let again = NewIncoming { id: 12, ..parked(2, message("\u{417}", "gr\u{f6}\u{df}e.\u{416}")) };
        let batch = WriteBatch { incoming: vec![again], ..WriteBatch::default() };
        storage.write(&owner("a"), &batch).await.unwrap();
    }
}

#[tokio::test]
async fn an_error_of_a_handler_is_always_recorded() {
    let (_database, storage) = database("LATIN1").await;
    let batch = WriteBatch { incoming: vec![held_incoming(1)], ..WriteBatch::default() };
    storage.write(&owner("a"), &batch).await.unwrap();
    let outcome =
        RowOutcome::Retry { after: std::time::Duration::ZERO, hold: false, error: "\u{20ac} 5".into() };
    let completed = RowCompletion { lease: crate::support::first_lease(1), outcome, publishes: Vec::new() };
    let batch = WriteBatch { completed_incoming: vec![completed], ..WriteBatch::default() };
    assert_eq!(storage.write(&owner("a"), &batch).await.unwrap().completed_incoming, [true]);
    assert_eq!(storage.attempts(Side::Inbox, 1).await.unwrap()[0].error, "\\u20AC 5");
}

/// Of each encoding that only the server knows: what it holds, and what it lacks.
const OTHERS: [(&str, &str, &str, &str); 3] = [
    ("LATIN2", "Ł\u{f3}d\u{17a}", "\u{416}\u{1f600}", "\\u0416\\uD83D\\uDE00"),
    ("EUC_JP", "\u{416}\u{65e5}\u{672c}", "\u{1f600}", "\\uD83D\\uDE00"),
    ("KOI8R", "\u{416}", "\u{141}", "\\u0141"),
];

#[tokio::test]
async fn what_the_server_can_convert_is_kept() {
    for (encoding, held, lacked, escaped) in OTHERS {
        let (_database, storage) = database(encoding).await;
        let (name, error) = (format!("n.{held}.{lacked}"), format!("{held}: {lacked}"));
        let entry = Entry::Parked {
            reason: Reason::Corrupt,
            error: error.clone(),
            keep: std::time::Duration::from_secs(60),
            notify: false,
        };
        let parked = NewIncoming { entry, message: message("1", &name), ..incoming(1) };
        let batch = WriteBatch { incoming: vec![parked, held_incoming(2)], ..WriteBatch::default() };
        let report = storage.write(&owner("a"), &batch).await.unwrap();
        assert_eq!(report.incoming, [Stored::New; 2], "{encoding}");
        let row = storage.get(Side::Inbox, 1).await.unwrap().unwrap();
        let question_marks = "?".repeat(lacked.chars().count());
        assert_eq!(row.name, format!("n.{held}.{question_marks}"), "{encoding}");
        assert_eq!(row.last_error, Some(format!("{held}: {escaped}")), "{encoding}");

        let outcome = RowOutcome::Retry { after: std::time::Duration::ZERO, hold: false, error };
        let completed =
            RowCompletion { lease: crate::support::first_lease(2), outcome, publishes: Vec::new() };
        let batch = WriteBatch { completed_incoming: vec![completed], ..WriteBatch::default() };
        assert_eq!(
            storage.write(&owner("a"), &batch).await.unwrap().completed_incoming,
            [true],
            "{encoding}"
        );
        let attempts = storage.attempts(Side::Inbox, 2).await.unwrap();
        assert_eq!(attempts[0].error, format!("{held}: {escaped}"), "{encoding}");
    }
}

#[tokio::test]
async fn a_text_outside_the_encoding_is_found_nowhere() {
    for (encoding, lacked) in [("LATIN1", "\u{416}"), ("LATIN2", "\u{416}"), ("EUC_JP", "\u{1f600}")] {
        let (_database, storage) = database(encoding).await;
        for side in [Side::Outbox, Side::Inbox] {
            assert!(storage.find(side, lacked).await.unwrap().is_empty(), "{encoding}");
            for query in [
                Query { topic: Some(lacked.into()), ..Query::new(side) },
                Query { group: Some(lacked.into()), ..Query::new(side) },
                Query { version: Some(lacked.into()), ..Query::new(side) },
                Query { error: Some(lacked.into()), ..Query::new(side) },
            ] {
                assert!(storage.list(&query).await.unwrap().is_empty(), "{encoding} {query:?}");
                assert!(storage.list_ids(&query).await.unwrap().is_empty(), "{encoding} {query:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_was_replaced_is_found_by_what_it_was() {
    for (encoding, _, lacked, _) in OTHERS {
        let (_database, storage) = database(encoding).await;
        let entry = Entry::Parked {
            reason: Reason::Corrupt,
            error: format!("no {lacked}"),
            keep: std::time::Duration::from_secs(60),
            notify: false,
        };
        let parked = NewIncoming { entry, message: message(lacked, "n"), ..incoming(1) };
        let batch = WriteBatch { incoming: vec![parked], ..WriteBatch::default() };
        storage.write(&owner("a"), &batch).await.unwrap();
        assert_eq!(storage.find(Side::Inbox, lacked).await.unwrap()[0].id, 1, "{encoding}");
        let query = Query { error: Some(lacked.to_owned()), ..Query::new(Side::Inbox) };
        assert_eq!(storage.list_ids(&query).await.unwrap(), [1], "{encoding}");
    }
}

#[tokio::test]
async fn names_outside_the_encoding_are_refused() {
    let (_database, storage) = database("LATIN2").await;
    storage.check_names(&["orders.v1", "Ł\u{f3}d\u{17a}"]).await.unwrap();
    let error = storage.check_names(&["orders.v1", "\u{437}\u{430}\u{43a}\u{430}\u{437}"]).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unusable);
    assert!(error.to_string().contains("\u{437}\u{430}\u{43a}\u{430}\u{437}"), "{error}");
    let (_database, storage) = database("SQL_ASCII").await;
    storage.check_names(&["\u{437}"]).await.unwrap();
}
