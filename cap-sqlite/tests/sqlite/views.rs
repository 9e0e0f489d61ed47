//! The messages as .NET CAP's users know them: its columns, its envelope, its states.

use std::sync::Arc;
use std::time::Duration;

use cap_core::message::{Headers, Message};
use cap_core::storage::{Entry, Identity, NewIncoming, NewOutgoing, Reason, Retention, RowOutcome, Side};

use crate::support::{Database, delayed, first_lease, held, outgoing};

const HEADERS: &str = r#"{"cap-callback-name":null,"cap-msg-id":"7","cap-msg-name":"order.created""#;

fn headers() -> Headers {
    let mut headers = Headers::new();
    headers.insert_null("cap-callback-name");
    headers.insert("cap-msg-id", "7");
    headers.insert("cap-msg-name", "order.created");
    headers
}

fn failed(error: &str) -> RowOutcome {
    RowOutcome::Retry { after: Duration::ZERO, hold: false, error: error.to_owned() }
}

#[tokio::test]
async fn a_body_is_shown_as_json_or_in_hexadecimal() {
    let database = Database::new().await;
    for (body, value) in [
        (&b""[..], "null"),
        (b"null", "null"),
        (br#"{"OrderId":7}"#, r#"{"OrderId":7}"#),
        (b" [1, 2] ", " [1, 2] "),
        ("\"ü <b>\"".as_bytes(), "\"ü <b>\""),
        (br#"{"OrderId":"#, r#""data:application/octet-stream;hex,7B224F726465724964223A""#),
        (b"\xff\xfe", r#""data:application/octet-stream;hex,FFFE""#),
        (b"1\0", r#""data:application/octet-stream;hex,3100""#),
    ] {
        let message = Arc::new(Message::new(headers(), body.to_vec()));
        database.publish(vec![NewOutgoing { message, ..outgoing(1) }]).await;
        let content = database.text("SELECT \"Content\" FROM cap_published WHERE \"Id\" = 1").await;
        assert_eq!(content, format!(r#"{{"Headers":{HEADERS}}},"Value":{value}}}"#));
        database.execute("DELETE FROM cap_outbox; DELETE FROM cap_outbox_state").await;
    }
}

#[tokio::test]
async fn a_failure_is_shown_among_the_headers() {
    let database = Database::new().await;
    let message = Arc::new(Message::new(headers(), &b"1"[..]));
    let entry = Entry::Scheduled { held: true };
    database
        .receive(vec![NewIncoming {
            id: 1,
            group: "billing.v1".into(),
            message,
            entry,
            identity: Identity::default(),
        }])
        .await;
    assert!(database.complete(Side::Inbox, first_lease(1), failed("boom \"quoted\"")).await);
    let content = database.text("SELECT \"Content\" FROM cap_received").await;
    let failure = r#""cap-exec-instance-id":"a","cap-exception":"boom \"quoted\"""#;
    assert_eq!(content, format!(r#"{{"Headers":{HEADERS},{failure}}},"Value":1}}"#));
    let row = "SELECT \"Retries\" || \"StatusName\" || \"Group\" FROM cap_received";
    assert_eq!(database.text(row).await, "1Failedbilling.v1");

    let mut older = headers();
    older.insert("cap-exception", "old");
    let message = Arc::new(Message::new(older, &b""[..]));
    database.publish(vec![NewOutgoing { message, ..held(2) }]).await;
    assert!(database.complete(Side::Outbox, first_lease(2), failed("new")).await);
    let content = database.text("SELECT \"Content\" FROM cap_published").await;
    assert_eq!(content, format!(r#"{{"Headers":{HEADERS},"cap-exception":"new"}},"Value":null}}"#));
}

#[tokio::test]
async fn states_have_caps_names_and_times() {
    let database = Database::new().await;
    database.publish(vec![outgoing(1), delayed(2), held(3), held(4), held(5), held(6)]).await;
    let keep = Duration::from_secs(3600);
    let given_up = RowOutcome::Failed {
        reason: Reason::Permanent,
        error: "x".into(),
        counted: true,
        keep,
        notify: false,
    };
    let done = |retention| RowOutcome::Succeeded { retention, reason: None };
    for (id, outcome) in
        [(3, failed("x")), (4, given_up), (5, done(Retention::Keep(keep))), (6, done(Retention::Forget))]
    {
        assert!(database.complete(Side::Outbox, first_lease(id), outcome).await);
    }
    let minutes = "CAST(round((julianday(\"ExpiresAt\") - julianday(\"Added\")) * 1440) AS INTEGER)";
    let rows = database
        .text(&format!(
            "SELECT group_concat(concat_ws(' ', \"Id\", \"StatusName\", \"Retries\", {minutes}), ', ' ORDER BY \"Id\")
             FROM cap_published"
        ))
        .await;
    assert_eq!(
        rows,
        "1 Scheduled 0, 2 Delayed 0 1, 3 Failed 1, 4 Failed 1 60, 5 Succeeded 0 60, 6 Succeeded 0 1440"
    );
}

#[tokio::test]
async fn the_columns_are_caps_in_caps_order() {
    let database = Database::new().await;
    for (view, group) in [("cap_published", ""), ("cap_received", " Group")] {
        let columns = format!("SELECT group_concat(name, ' ' ORDER BY cid) FROM pragma_table_info('{view}')");
        let expected = format!("Id Version Name{group} Content Retries Added ExpiresAt StatusName");
        assert_eq!(database.text(&columns).await, expected);
    }
}
