//! What a foreign sender may do without stopping a consumer. The broker forwards all of it.

use crate::support;
use crate::support::raw::{RawClient, long, short, value};
use crate::support::{Place, message, receive, soon};
use cap_core::transport::{Acknowledge, Consumer, Incoming, Transport};
use cap_rabbitmq::RabbitMq;

const HEADERS: u16 = 1 << 13;
const MESSAGE_ID: u16 = 1 << 7;

/// Publishes one raw message and a good one after it, and gives back the first as the consumer saw it.
async fn survive(place: &Place, routing_key: &[u8], flags: u16, properties: &[u8]) -> Incoming {
    let transport = place.started();
    let mut consumer = soon(transport.consume(&place.spec("q", &["#"], 10))).await.unwrap();
    let mut raw = RawClient::connect().await;
    raw.publish(&place.exchange, routing_key, flags, properties, b"body").await;
    raw.finish().await;
    for answer in soon(transport.send(&[message("good", "good", "{}")])).await {
        answer.unwrap();
    }
    let mut received = receive(&mut consumer, 2).await;
    assert_eq!(received[1].headers.get("cap-msg-id"), Some("good"));
    consumer.acknowledge(&[received[0].tag, received[1].tag], Acknowledge::Accept).await.unwrap();
    received.remove(0)
}

#[tokio::test]
async fn names_that_are_not_utf_8() {
    let place = Place::new();
    let table = [short(b"na\xefve"), value(b'S', b"caf\xe9")].concat();
    let properties = [long(&table), short(b"id\xff")].concat();
    let got = survive(&place, b"key.\xff\xfe", HEADERS | MESSAGE_ID, &properties).await;
    assert_eq!(got.routing_key, "key.??");
    assert_eq!(got.headers.get("na?ve"), Some("caf\u{fffd}"));
    assert_eq!(got.properties.get("message-id"), Some("id?"));
    assert_eq!(got.body, "body");
}

/// Some 20,000 levels, as many as a frame holds. lapin alone would exhaust its thread's stack and abort the process.
#[tokio::test]
async fn tables_that_nest_without_end() {
    for kind in [b'F', b'A'] {
        let place = Place::new();
        let name = if kind == b'F' { short(b"") } else { Vec::new() };
        let mut nested = b"V".to_vec();
        for _ in 0..20_000 {
            nested = value(kind, &[&name[..], &nested].concat());
        }
        let table = [short(b"deep"), nested, short(b"cap-msg-id"), value(b'S', b"7")].concat();
        let got = survive(&place, b"k", HEADERS, &long(&table)).await;
        assert_eq!(got.headers.get("cap-msg-id"), Some("7"));
        let deep = got.headers.get("deep").unwrap();
        assert!(deep.contains('…') && deep.len() < 1000, "{deep}");
    }
}

/// A quorum queue adds `x-delivery-count` when it delivers again, even to a frame that is full already.
#[tokio::test]
async fn headers_that_fill_the_frame_and_then_grow() {
    let place = Place::new();
    let transport = support::start(RabbitMq::new(support::amqp_url()).exchange(&place.exchange));
    let mut consumer = soon(transport.consume(&place.spec("q", &["#"], 10))).await.unwrap();
    // The frame: its ends, class to flags, the table's length, and two headers.
    let fixed = 8 + 14 + 4 + (11 + 5 + 1) + (2 + 5);
    let table =
        [short(b"cap-msg-id"), value(b'S', b"7"), short(b"m"), value(b'S', &vec![b'x'; 131_072 - fixed])]
            .concat();
    let mut raw = RawClient::connect().await;
    raw.publish(&place.exchange, b"k", HEADERS, &long(&table), b"body").await;
    raw.finish().await;
    let got = receive(&mut consumer, 1).await.remove(0);
    assert_eq!(got.headers.get("m").map(str::len), Some(131_072 - fixed));
    consumer.acknowledge(&[got.tag], Acknowledge::Requeue).await.unwrap();
    let again = receive(&mut consumer, 1).await.remove(0);
    assert!(again.redelivered);
    assert_eq!(again.headers.get("cap-msg-id"), Some("7"), "only the largest header is given up");
    assert_eq!(again.headers.get("x-delivery-count"), Some("1"));
    assert_eq!(again.body, "body");
}

#[tokio::test]
async fn a_message_with_nothing_at_all() {
    let got = survive(&Place::new(), b"", 0, b"").await;
    assert!(got.headers.is_empty());
    assert_eq!(got.routing_key, "");
    assert_eq!(got.body, "body");
}
