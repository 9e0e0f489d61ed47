//! The messages as .NET CAP's users know them: its columns, its envelope, its states.

use std::sync::Arc;
use std::time::Duration;

use cap_core::message::{Headers, Message};
use cap_core::monitor::Monitor as _;
use cap_core::storage::{
    Entry, Identity, NewIncoming, NewOutgoing, Owner, Reason, Retention, RowOutcome, Side, Storage as _,
};
use cap_core::storage::{RowCompletion, WriteBatch};

use crate::support::{Database, delayed, first_lease, held, outgoing, owner};

/// The headers of the test vectors (cap-compat section 19).
fn vector_headers() -> Headers {
    let mut headers = Headers::new();
    headers.insert_null("cap-callback-name");
    for (name, value) in [
        ("cap-msg-id", "4901861535869464577"),
        ("cap-corr-id", "4901861535869464577"),
        ("cap-corr-seq", "0"),
        ("cap-msg-name", "order.created"),
        ("cap-msg-type", "OrderCreated"),
        ("cap-senttime", "11/21/2025 19:03:05"),
    ] {
        headers.insert(name, value);
    }
    headers
}

const VECTOR: &str = r#"{"Headers":{"cap-callback-name":null,"cap-msg-id":"4901861535869464577","cap-corr-id":"4901861535869464577","cap-corr-seq":"0","cap-msg-name":"order.created","cap-msg-type":"OrderCreated","cap-senttime":"11/21/2025 19:03:05""#;

impl Database {
    async fn published(&self, headers: Headers, body: &[u8]) -> String {
        let message = Arc::new(Message::new(headers, body.to_vec()));
        self.publish(vec![NewOutgoing { message, ..outgoing(1) }]).await;
        let content = self.text("SELECT \"Content\" FROM {s}.published WHERE \"Id\" = 1").await;
        self.execute("TRUNCATE {s}.outbox, {s}.outbox_state").await;
        content
    }
}

#[tokio::test]
async fn a_published_message_is_the_vector_byte_for_byte() {
    let database = Database::new().await;
    let content = database.published(vector_headers(), br#"{"OrderId":7}"#).await;
    assert_eq!(content, format!(r#"{VECTOR}}},"Value":{{"OrderId":7}}}}"#));
}

#[tokio::test]
async fn a_received_message_that_failed_is_the_vector_byte_for_byte() {
    let database = Database::new().await;
    let mut headers = vector_headers();
    headers.insert("cap-msg-group", "cap.queue.billing.v1");
    let message = Arc::new(Message::new(headers, &br#"{"OrderId":7}"#[..]));
    let entry = Entry::Scheduled { held: true };
    database
        .receive(vec![NewIncoming {
            id: 1,
            group: "cap.queue.billing.v1".into(),
            message,
            entry,
            identity: Identity::default(),
        }])
        .await;
    let content = "SELECT \"Content\" FROM {s}.received";
    let group = r#","cap-msg-group":"cap.queue.billing.v1""#;
    let value = r#"},"Value":{"OrderId":7}}"#;
    assert_eq!(database.text(content).await, format!("{VECTOR}{group}{value}"));

    let error = "SubscriberExecutionFailedException-->boom".to_owned();
    let outcome = RowOutcome::Retry { after: Duration::ZERO, hold: false, error };
    let completed = RowCompletion { lease: first_lease(1), outcome, publishes: Vec::new() };
    let batch = WriteBatch { completed_incoming: vec![completed], ..WriteBatch::default() };
    database.storage.write(&Owner { node: "host-1".into(), ..owner("a") }, &batch).await.unwrap();
    let failure = r#","cap-exec-instance-id":"host-1","cap-exception":"SubscriberExecutionFailedException--\u003Eboom""#;
    assert_eq!(database.text(content).await, format!("{VECTOR}{group}{failure}{value}"));
    let row = "SELECT \"Retries\" || \"StatusName\" || \"Group\" FROM {s}.received";
    assert_eq!(database.text(row).await, "1Failedcap.queue.billing.v1");
}

#[tokio::test]
async fn a_body_is_shown_as_json_or_as_a_data_uri() {
    let database = Database::new().await;
    let undecodable = database.published(vector_headers(), br#"{"OrderId":"#).await;
    assert_eq!(undecodable, format!(r#"{VECTOR}}},"Value":"data:OrderCreated;base64,eyJPcmRlcklkIjo="}}"#));
    for (body, value) in [
        (&b""[..], "null".to_owned()),
        (b"null", "null".to_owned()),
        (b" [1, 2] ", " [1, 2] ".to_owned()),
        ("\"ü <b>\"".as_bytes(), "\"ü <b>\"".to_owned()),
        (br#""a\u0000b""#, r#""a\u0000b""#.to_owned()),
        (b"\xff\xfe", r#""data:UnknownType;base64,//4=""#.to_owned()),
        (b"a\0b", r#""data:UnknownType;base64,YQBi""#.to_owned()),
        (&[0xfb; 90], format!(r#""data:UnknownType;base64,{}""#, r"\u002B/v7".repeat(30))),
    ] {
        let content = database.published(Headers::new(), body).await;
        assert_eq!(content, format!(r#"{{"Headers":{{}},"Value":{value}}}"#));
        serde_json::from_str::<serde_json::Value>(&content).unwrap();
    }
}

#[tokio::test]
async fn header_text_is_escaped_as_dot_net_does() {
    let database = Database::new().await;
    for (text, escaped) in [
        ("<>&'\"+`", r"\u003C\u003E\u0026\u0027\u0022\u002B\u0060"),
        ("a\\b/c", r"a\\b/c"),
        ("\\\"", r"\\\u0022"),
        ("\\u001f", r"\\u001f"),
        ("\u{8}\u{c}\n\r\t", r"\b\f\n\r\t"),
        ("\u{1f}\u{0}\u{7f}", r"\u001F\u0000\u007F"),
        ("ü€\u{1F980}", r"\u00FC\u20AC\uD83E\uDD80"),
    ] {
        let headers: Headers = [("a", text)].into_iter().collect();
        let content = database.published(headers, b"1").await;
        assert_eq!(content, format!(r#"{{"Headers":{{"a":"{escaped}"}},"Value":1}}"#));
        let json: serde_json::Value = serde_json::from_str(&content).unwrap();
        assert_eq!(json["Headers"]["a"], text);
    }
}

#[tokio::test]
async fn older_exception_header_is_replaced_by_the_newer() {
    let database = Database::new().await;
    let headers = [("cap-exception", "old"), ("a", "1")].into_iter().collect();
    let message = Arc::new(Message::new(headers, &b""[..]));
    database.publish(vec![NewOutgoing { message, ..held(1) }]).await;
    let outcome = RowOutcome::Retry { after: Duration::ZERO, hold: false, error: "new".to_owned() };
    assert!(database.complete(Side::Outbox, first_lease(1), outcome).await);
    let content = database.text("SELECT \"Content\" FROM {s}.published").await;
    assert_eq!(content, r#"{"Headers":{"a":"1","cap-exception":"new"},"Value":null}"#);
}

#[tokio::test]
async fn states_have_caps_names_and_times() {
    let database = Database::new().await;
    database.publish(vec![outgoing(1), delayed(2), held(3), held(4), held(5), held(6)]).await;
    let keep = Duration::from_secs(3600);
    let failed = RowOutcome::Failed {
        reason: Reason::Permanent,
        error: "x".into(),
        counted: true,
        keep,
        notify: false,
    };
    let retry = RowOutcome::Retry { after: keep, hold: false, error: "x".into() };
    let done = |retention| RowOutcome::Succeeded { retention, reason: None };
    for (id, outcome) in
        [(3, retry), (4, failed), (5, done(Retention::Keep(keep))), (6, done(Retention::Forget))]
    {
        assert!(database.complete(Side::Outbox, first_lease(id), outcome).await);
    }
    let row = "SELECT string_agg(concat_ws(' ', \"Id\", \"StatusName\", \"Retries\",
            round(extract(epoch FROM \"ExpiresAt\" - \"Added\") / 60)), ', ' ORDER BY \"Id\") FROM {s}.published";
    assert_eq!(
        database.text(row).await,
        "1 Scheduled 0, 2 Delayed 0 1, 3 Failed 1, 4 Failed 1 60, 5 Succeeded 0 60, 6 Succeeded 0 1440"
    );
    let local = "SELECT bool_and(\"Added\" = o.added AT TIME ZONE 'Asia/Tokyo')
        FROM {s}.published JOIN {s}.outbox o ON o.id = \"Id\"";
    let mut connection = database.pool.acquire().await.unwrap();
    sqlx::query("SET TIME ZONE 'Asia/Tokyo'").execute(&mut *connection).await.unwrap();
    assert!(sqlx::query_scalar::<_, bool>(database.sql(local)).fetch_one(&mut *connection).await.unwrap());
    database.storage.get(Side::Outbox, 1).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_columns_are_caps_in_caps_order() {
    let database = Database::new().await;
    let columns =
        "SELECT string_agg(format('%s %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = '{s}.{view}'::regclass AND attnum > 0";
    for (view, group) in [("published", ""), ("received", " Group character varying(200),")] {
        let expected = format!(
            "Id bigint, Version character varying(20), Name character varying(200),{group} Content text, \
             Retries integer, Added timestamp without time zone, ExpiresAt timestamp without time zone, \
             StatusName character varying(50)"
        );
        assert_eq!(database.text(&columns.replace("{view}", view)).await, expected);
    }
}
