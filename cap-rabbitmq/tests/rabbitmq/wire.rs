//! What goes over the wire, in both directions.

use std::sync::Arc;

use crate::support;
use crate::support::{Place, receive, soon};
use cap_core::message::{Headers, Message};
use cap_core::transport::{Acknowledge, Consumer, Sent, Transport};
use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};

/// The first test vector of cap-compat section 19.
#[tokio::test]
async fn a_message_looks_as_net_cap_would_send_it() {
    let place = Place::new();
    let (channel, queue) = place.plain_queue("wire", "order.created").await;
    let mut headers = Headers::new();
    headers.insert_null("cap-callback-name");
    headers.insert("cap-msg-id", "4901861535869464577");
    headers.insert("cap-corr-id", "4901861535869464577");
    headers.insert("cap-corr-seq", "0");
    headers.insert("cap-msg-name", "order.created");
    headers.insert("cap-msg-type", "OrderCreated");
    headers.insert("cap-senttime", "11/21/2025 19:03:05");
    headers.insert("cap-exception", "SubscriberExecutionFailedException-->boom");
    let message = Arc::new(Message::new(headers, r#"{"OrderId":7}"#));

    let answers = soon(place.started().send(&[message])).await;
    assert_eq!(answers.into_iter().collect::<Result<Vec<_>, _>>().unwrap(), [Sent::Routed]);

    let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
    assert_eq!(got.exchange.as_str(), place.exchange);
    assert_eq!(got.routing_key.as_str(), "order.created");
    assert_eq!(got.data, br#"{"OrderId":7}"#);
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut expected = FieldTable::default();
    expected.insert("cap-callback-name".into(), AMQPValue::Void);
    expected.insert("cap-msg-id".into(), text("4901861535869464577"));
    expected.insert("cap-corr-id".into(), text("4901861535869464577"));
    expected.insert("cap-corr-seq".into(), text("0"));
    expected.insert("cap-msg-name".into(), text("order.created"));
    expected.insert("cap-msg-type".into(), text("OrderCreated"));
    expected.insert("cap-senttime".into(), text("11/21/2025 19:03:05"));
    let properties = BasicProperties::default()
        .with_message_id("4901861535869464577".into())
        .with_delivery_mode(2)
        .with_headers(expected);
    assert_eq!(got.properties, properties, "and nothing else is set");
}

#[tokio::test]
async fn a_message_comes_back_as_it_was_sent() {
    let place = Place::new();
    let transport = place.started();
    let mut consumer = soon(transport.consume(&place.spec("in", &["a.b"], 10))).await.unwrap();
    let mut headers = Headers::new();
    headers.insert("cap-msg-id", "1");
    headers.insert("cap-msg-name", "a.b");
    headers.insert("Empty", "");
    headers.insert("grün", "ü\u{0}\n\u{1F600}");
    headers.insert_null("none");
    let sent = Arc::new(Message::new(headers, vec![0, 255, 1]));
    let empty = support::message("2", "a.b", "");
    for answer in soon(transport.send(&[Arc::clone(&sent), empty])).await {
        assert_eq!(answer.unwrap(), Sent::Routed);
    }
    let received = receive(&mut consumer, 2).await;
    // AMQP tables have no order that lapin would keep.
    let sorted = |headers: &Headers| {
        let mut all: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).collect();
        all.sort();
        all
    };
    assert_eq!(sorted(&received[0].headers), sorted(&sent.headers));
    assert_eq!(received[0].body, sent.body);
    assert_eq!(received[0].routing_key, "a.b");
    assert_eq!(received[0].properties.get("message-id"), Some("1"));
    assert_eq!(received[0].properties.get("delivery-mode"), Some("2"));
    assert_eq!(received[0].properties.get("exchange"), Some(place.exchange.as_str()));
    assert!(!received[0].redelivered);
    assert!(received[1].body.is_empty());
    consumer.acknowledge(&[received[0].tag, received[1].tag], Acknowledge::Accept).await.unwrap();
    transport.close().await;
}

#[tokio::test]
async fn every_type_of_header_arrives_as_text() {
    let place = Place::new();
    let transport = place.started();
    let mut consumer = soon(transport.consume(&place.spec("types", &["t"], 10))).await.unwrap();

    let mut inner = FieldTable::default();
    inner.insert("list".into(), AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::LongInt(1)])));
    let mut table = FieldTable::default();
    for (name, value) in [
        ("text", AMQPValue::LongString("grün".into())),
        ("latin", AMQPValue::LongString(vec![b'g', 0xfc].into())),
        ("true", AMQPValue::Boolean(true)),
        ("i8", AMQPValue::ShortShortInt(-1)),
        ("u8", AMQPValue::ShortShortUInt(200)),
        ("i16", AMQPValue::ShortInt(-300)),
        ("u16", AMQPValue::ShortUInt(60_000)),
        ("i32", AMQPValue::LongInt(5)),
        ("u32", AMQPValue::LongUInt(4_000_000_000)),
        ("i64", AMQPValue::LongLongInt(-5_000_000_000)),
        ("float", AMQPValue::Float(1.5)),
        ("double", AMQPValue::Double(0.1)),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 1234 })),
        ("time", AMQPValue::Timestamp(1_700_000_000)),
        ("bytes", AMQPValue::ByteArray(vec![b'x', b'y'].into())),
        ("table", AMQPValue::FieldTable(inner)),
        ("void", AMQPValue::Void),
    ] {
        table.insert(name.into(), value);
    }
    let properties = BasicProperties::default()
        .with_headers(table)
        .with_message_id("m".into())
        .with_correlation_id("c".into())
        .with_content_type("text/plain".into())
        .with_content_encoding("gzip".into())
        .with_type("kind".into())
        .with_app_id("app".into())
        .with_reply_to("reply".into())
        .with_expiration("60000".into())
        .with_priority(4)
        .with_timestamp(99);
    support::plain_channel()
        .await
        .basic_publish(
            place.exchange.as_str().into(),
            "t".into(),
            BasicPublishOptions::default(),
            b"x",
            properties,
        )
        .await
        .unwrap();

    let received = receive(&mut consumer, 1).await.remove(0);
    for (name, expected) in [
        ("text", "grün"),
        ("latin", "g\u{fffd}"),
        ("true", "True"),
        ("i8", "-1"),
        ("u8", "200"),
        ("i16", "-300"),
        ("u16", "60000"),
        ("i32", "5"),
        ("u32", "4000000000"),
        ("i64", "-5000000000"),
        ("float", "1.5"),
        ("double", "0.1"),
        ("decimal", "12.34"),
        ("time", "1700000000"),
        ("bytes", "xy"),
        ("table", r#"{"list":[1]}"#),
    ] {
        assert_eq!(received.headers.get(name), Some(expected), "{name}");
    }
    assert!(received.headers.contains("void") && received.headers.get("void").is_none());
    for (name, expected) in [
        ("message-id", "m"),
        ("correlation-id", "c"),
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("type", "kind"),
        ("app-id", "app"),
        ("reply-to", "reply"),
        ("expiration", "60000"),
        ("priority", "4"),
        ("timestamp", "99"),
        ("exchange", place.exchange.as_str()),
    ] {
        assert_eq!(received.properties.get(name), Some(expected), "{name}");
    }
}

#[tokio::test]
async fn a_body_of_100_mib_goes_through() {
    let place = Place::new();
    let transport = place.started();
    let mut consumer = soon(transport.consume(&place.spec("large", &["large"], 2))).await.unwrap();
    let mut body = vec![7u8; 100 * 1024 * 1024];
    body[50_000_000] = 8;
    let body = bytes::Bytes::from(body);
    let batch = [
        support::message("1", "large", "before"),
        support::message("2", "large", body.clone()),
        support::message("3", "large", "after"),
    ];
    for answer in soon(transport.send(&batch)).await {
        assert_eq!(answer.unwrap(), Sent::Routed);
    }
    let received = receive(&mut consumer, 2).await;
    assert!(received[1].body == body, "the body was changed on its way");
    consumer.acknowledge(&[received[0].tag, received[1].tag], Acknowledge::Accept).await.unwrap();
    assert_eq!(receive(&mut consumer, 1).await[0].body, "after");
}
