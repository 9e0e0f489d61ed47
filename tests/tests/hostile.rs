//! Hostile deliveries: whatever a sender writes, the consumer goes on, and the good message behind it gets through.

use cap_core::prelude::*;
use cap_core::storage::Reason;
use cap_core::{Failure, Headers};
use cap_tests::{Foreign, Scene, heard, long_strings, scene};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};
use tokio::sync::mpsc;

use crate::orders::{DeductQty, OrderCreated};

/// A service that is sent bad things.
struct Victim {
    foreign: Foreign,
    /// What the handler of `odd` was given: headers and body.
    odd: mpsc::Receiver<(Headers, Vec<u8>)>,
    good: mpsc::Receiver<u32>,
    failures: mpsc::Receiver<Failure>,
    sent: u32,
}

impl Victim {
    async fn of(scene: &Scene) -> Self {
        let (tell_odd, odd) = mpsc::channel(16);
        let (tell_good, good) = mpsc::channel(16);
        let (fail, failures) = mpsc::channel(16);
        let builder = scene
            .builder()
            .on_failed(move |failure| {
                let fail = fail.clone();
                async move { fail.send(failure).await.unwrap() }
            })
            .subscribe("odd", move |headers: CapHeaders, body: RawBody| {
                let tell = tell_odd.clone();
                async move { tell.send((headers.all().clone(), body.0.to_vec())).await.unwrap() }
            })
            .subscribe("good", move |number: u32| {
                let tell = tell_good.clone();
                async move { tell.send(number).await.unwrap() }
            })
            .subscribe("typed.order", async |_: OrderCreated| ())
            .subscribe("typed.command", async |_: DeductQty| ())
            .subscribe("typed.text", async |_: String| ())
            .subscribe("typed.numbers", async |_: Vec<u8>| ())
            .subscribe("typed.nested", async |_: serde_json::Value| ());
        scene.start(builder).await;
        Self { foreign: scene.foreign().await, odd, good, failures, sent: 0 }
    }

    /// Sends a table of headers to the handler that takes anything, and gives back what it saw. A good message after it
    /// gets through.
    async fn survives(&mut self, mut headers: FieldTable) -> Headers {
        headers.insert("cap-msg-id".into(), AMQPValue::LongString(format!("odd-{}", self.sent).into()));
        headers.insert("cap-msg-name".into(), AMQPValue::LongString("odd".into()));
        self.foreign.publish("odd", BasicProperties::default().with_headers(headers), b"{}").await;
        let (seen, _) = heard(&mut self.odd).await;
        self.good_gets_through().await;
        seen
    }

    /// Sends headers with which the message is parked, and gives back why. A good message after it gets through.
    async fn is_parked(&mut self, routing_key: &str, headers: &[(&str, &str)], body: &[u8]) -> Failure {
        let properties = BasicProperties::default().with_headers(long_strings(headers));
        self.foreign.publish(routing_key, properties, body).await;
        let failure = heard(&mut self.failures).await;
        assert_eq!(failure.message.body, body);
        self.good_gets_through().await;
        failure
    }

    async fn good_gets_through(&mut self) {
        self.sent += 1;
        let number = self.sent;
        self.foreign.send_named("good", &format!("good-{number}"), number.to_string().as_bytes()).await;
        assert_eq!(heard(&mut self.good).await, number);
    }
}

fn one(value: AMQPValue) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x".into(), value);
    table
}

#[tokio::test]
async fn header_values_of_every_type_are_read_as_text() {
    scene(async |scene| {
        let mut victim = Victim::of(scene).await;
        let cases = [
            (AMQPValue::Boolean(true), Some("True")),
            (AMQPValue::Boolean(false), Some("False")),
            (AMQPValue::ShortShortInt(-5), Some("-5")),
            (AMQPValue::ShortShortUInt(200), Some("200")),
            (AMQPValue::ShortInt(-300), Some("-300")),
            (AMQPValue::ShortUInt(60_000), Some("60000")),
            (AMQPValue::LongInt(5), Some("5")),
            (AMQPValue::LongUInt(u32::MAX), Some("4294967295")),
            (AMQPValue::LongLongInt(i64::MIN), Some("-9223372036854775808")),
            (AMQPValue::Float(0.5), Some("0.5")),
            (AMQPValue::Double(-1.25), Some("-1.25")),
            (AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 1234 }), Some("12.34")),
            (AMQPValue::Timestamp(1_700_000_000), Some("1700000000")),
            (AMQPValue::Timestamp(u64::MAX), Some("18446744073709551615")),
            (AMQPValue::LongString("Grüße".into()), Some("Grüße")),
            (AMQPValue::LongString(vec![b'a', 0xff, b'b'].into()), Some("a\u{fffd}b")),
            (AMQPValue::LongString("".into()), Some("")),
            (AMQPValue::ByteArray(b"bytes".to_vec().into()), Some("bytes")),
            (
                AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::LongInt(1), AMQPValue::Void])),
                Some("[1,null]"),
            ),
            (AMQPValue::FieldTable(one(AMQPValue::Boolean(true))), Some(r#"{"x":true}"#)),
            (AMQPValue::Void, None),
        ];
        for (value, text) in cases {
            let seen = victim.survives(one(value.clone())).await;
            assert!(seen.contains("x"));
            assert_eq!(seen.get("x"), text, "{value:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn ids_and_names_of_other_types_are_taken_as_text() {
    scene(async |scene| {
        let mut victim = Victim::of(scene).await;
        let mut headers = FieldTable::default();
        headers.insert("cap-msg-id".into(), AMQPValue::LongLongInt(4_901_861_535_869_464_577));
        headers.insert("cap-msg-name".into(), AMQPValue::ByteArray(b"odd".to_vec().into()));
        headers.insert("cap-corr-seq".into(), AMQPValue::Boolean(true));
        victim.foreign.publish("odd", BasicProperties::default().with_headers(headers), b"{}").await;
        let (seen, _) = heard(&mut victim.odd).await;
        assert_eq!(seen.get("cap-msg-id"), Some("4901861535869464577"));
        assert_eq!(seen.get("cap-msg-name"), Some("odd"));
        victim.good_gets_through().await;
    })
    .await;
}

#[tokio::test]
async fn tables_nested_deep_and_headers_as_large_as_a_frame_holds() {
    scene(async |scene| {
        let mut victim = Victim::of(scene).await;
        for levels in [10, 500] {
            let nested = (0..levels).fold(AMQPValue::LongInt(7), |inner, level| match level % 2 {
                0 => AMQPValue::FieldArray(FieldArray::from(vec![inner])),
                _ => AMQPValue::FieldTable(one(inner)),
            });
            let seen = victim.survives(one(nested)).await;
            assert!(seen.get("x").unwrap().starts_with(r#"{"x":[{"x":[{"x":["#));
        }
        let large = "x".repeat(120_000);
        let seen = victim.survives(long_strings(&[("x", large.as_str())])).await;
        assert_eq!(seen.get("x").map(str::len), Some(large.len()));
        let mut many = FieldTable::default();
        for number in 0..5000 {
            many.insert(format!("header-{number}").into(), AMQPValue::LongInt(number));
        }
        let seen = victim.survives(many).await;
        assert_eq!(seen.get("header-4999"), Some("4999"));
    })
    .await;
}

/// Text that a database or a JSON reader may stumble over.
#[tokio::test]
async fn odd_text_in_headers() {
    scene(async |scene| {
        let mut victim = Victim::of(scene).await;
        for text in
            ["a\0b", "\0", "\u{feff}", "\u{10ffff}", "'; DROP SCHEMA cap --", "\"\\\n\r\t\u{1}\u{7f}", "{}"]
        {
            let seen = victim.survives(long_strings(&[("x", text), (text, "x")])).await;
            assert!(seen.contains("x"), "{text:?}");
        }
        // The bus's own headers, with values that no bus writes.
        let own = [
            ("cap-corr-id", ""),
            ("cap-corr-seq", "-1"),
            ("cap-senttime", "yesterday"),
            ("cap-delaytime", "99999999.00:00:00"),
            ("cap-msg-type", "'"),
            ("cap-msg-group", "somebody else's"),
            ("cap-exec-instance-id", "x"),
            ("cap-exception", "boom"),
            ("traceparent", "00-zz"),
        ];
        let seen = victim.survives(long_strings(&own)).await;
        assert_eq!(seen.get("cap-msg-group"), Some(scene.queue("main").as_str()));
        assert_eq!(seen.get("cap-exception"), None);
    })
    .await;
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_parked() {
    scene(async |scene| {
        let mut victim = Victim::of(scene).await;
        let deep = "[".repeat(100_000);
        let cases: [(&str, &[u8]); 14] = [
            ("typed.order", b""),
            ("typed.order", b"null"),
            ("typed.order", b"\xff\xfe{\x00"),
            ("typed.order", b"{\"OrderId\":\"\xc3\x28\"}"),
            ("typed.order", b"{\"OrderId\": 9223372036854775808}"),
            ("typed.order", b"{\"OrderId\": 1e400}"),
            ("typed.order", b"{\"OrderId\": 7.5}"),
            ("typed.order", b"{\"OrderId\": \"7\"}"),
            ("typed.order", b"{\"OrderId\": 7"),
            ("typed.order", b"{\"OrderId\": 7} {\"OrderId\": 8}"),
            ("typed.command", b"{\"OrderId\": 7, \"Qty\": 2147483648}"),
            ("typed.text", b"\"caf\xe9\""),
            ("typed.numbers", b"[0, 255, 256]"),
            ("typed.nested", deep.as_bytes()),
        ];
        for (number, (topic, body)) in cases.into_iter().enumerate() {
            let id = format!("bad-{number}");
            let headers = [("cap-msg-id", id.as_str()), ("cap-msg-name", topic)];
            let failure = victim.is_parked(topic, &headers, body).await;
            let error = &failure.error;
            assert_eq!(failure.reason, Reason::Undecodable, "{topic}: {error}");
            assert!(error.len() < 500, "{error}");
        }
    })
    .await;
}

/// Issue 8, row 16: some senders write a byte order mark before their JSON.
#[tokio::test]
async fn a_byte_order_mark_before_json_is_passed_over() {
    scene(async |scene| {
        let mut victim = Victim::of(scene).await;
        victim.foreign.send_named("good", "marked", b"\xef\xbb\xbf7").await;
        let number = tokio::select! {
            number = heard(&mut victim.good) => number,
            failure = heard(&mut victim.failures) => panic!("it was parked: {}", failure.error),
        };
        assert_eq!(number, 7);
        victim.foreign.send_named("odd", "raw", b"\xef\xbb\xbf7").await;
        assert_eq!(heard(&mut victim.odd).await.1, b"\xef\xbb\xbf7", "the raw body is as it came");
        victim.good_gets_through().await;
    })
    .await;
}

/// The handler that takes the raw body gets whatever bytes came.
#[tokio::test]
async fn a_raw_body_is_any_bytes_at_all() {
    scene(async |scene| {
        let mut victim = Victim::of(scene).await;
        for (number, body) in [&b""[..], b"\0", b"\xff\xfe\0", b"not json"].into_iter().enumerate() {
            victim.foreign.send_named("odd", &format!("raw-{number}"), body).await;
            assert_eq!(heard(&mut victim.odd).await.1, body);
            victim.good_gets_through().await;
        }
    })
    .await;
}

#[tokio::test]
async fn names_and_ids_out_of_bounds_are_parked() {
    scene(async |scene| {
        let mut victim = Victim::of(scene).await;
        let (long_name, long_id) = ("n".repeat(201), "i".repeat(201));
        let huge = "n".repeat(100_000);
        let cases: [&[(&str, &str)]; 9] = [
            &[("cap-msg-id", "1"), ("cap-msg-name", &long_name)],
            &[("cap-msg-id", "2"), ("cap-msg-name", &huge)],
            &[("cap-msg-id", &long_id), ("cap-msg-name", "odd")],
            &[("cap-msg-id", "3\0"), ("cap-msg-name", "odd")],
            &[("cap-msg-id", "4"), ("cap-msg-name", "odd\0")],
            &[("cap-msg-id", "5"), ("cap-msg-name", "o*d.#")],
            &[("cap-msg-id", "6"), ("cap-msg-name", "odd one")],
            &[("cap-msg-id", "7"), ("cap-msg-name", "..")],
            &[("cap-msg-id", "8"), ("cap-msg-name", "odd"), ("cap-callback-name", &long_name)],
        ];
        for headers in cases {
            let failure = victim.is_parked("odd", headers, b"{}").await;
            let error = &failure.error;
            assert_eq!(failure.reason, Reason::MissingHeaders, "{error}");
            assert!(error.len() < 500, "{error}");
        }
        // At the bound it is fine.
        let id = "i".repeat(200);
        victim.foreign.send_named("odd", &id, b"{}").await;
        assert_eq!(heard(&mut victim.odd).await.0.get("cap-msg-id"), Some(id.as_str()));
    })
    .await;
}
