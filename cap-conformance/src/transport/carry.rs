//! Carrying: what is sent arrives as it was, and nothing else does.

use std::sync::Arc;

use bytes::Bytes;
use cap_adapter::message::headers::names;
use cap_adapter::message::{Headers, Message};
use cap_adapter::transport::Incoming;

use super::TransportFixture;
use super::bus::{Bus, accept, ids, message};

const TOPIC: &str = "order.created";

/// Sends messages to a group and returns what arrives there.
async fn carry<F: TransportFixture>(fixture: &F, messages: &[Arc<Message>]) -> Vec<Incoming> {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    bus.send_routed(messages).await;
    accept(&mut consumer, messages.len()).await
}

/// Expects every header that was sent with its value, null or not, and no other of CAP's names.
fn expect_headers(arrived: &Headers, sent: &Headers) {
    for (name, value) in sent.iter() {
        assert!(arrived.contains(name), "the header {name:?} is missing");
        assert_eq!(arrived.get(name), value, "{name:?}");
    }
    let added: Vec<&str> = arrived.iter().map(|(name, _)| name).filter(|name| !sent.contains(name)).collect();
    assert!(added.iter().all(|name| !name.starts_with("cap-")), "nobody sent {added:?}");
}

/// Null is not empty, and any text is a value.
pub async fn awkward_headers_arrive_in_full<F: TransportFixture>(fixture: &F) {
    let mut headers = message("1", TOPIC).headers.clone();
    headers.insert_null(names::CALLBACK_NAME);
    headers.insert("empty", "");
    headers.insert("unicode 🐎", "𝄞 Grüße 👩‍👩‍👧");
    headers.insert("quotes", "\" ' \\ {} \r\n\t");
    headers.insert("Case", "upper");
    headers.insert("case", "lower");
    headers.insert("long", "x".repeat(10_000));
    let arrived = carry(fixture, &[Arc::new(Message::new(headers.clone(), "{}"))]).await;
    expect_headers(&arrived[0].headers, &headers);
    assert_eq!(arrived[0].routing_key, TOPIC);
    assert!(!arrived[0].redelivered, "it comes for the first time");
}

/// Two hundred headers.
pub async fn many_headers_arrive<F: TransportFixture>(fixture: &F) {
    let mut headers = message("1", TOPIC).headers.clone();
    for number in 0..200 {
        headers.insert(format!("header-{number}"), format!("value {number}"));
    }
    let arrived = carry(fixture, &[Arc::new(Message::new(headers.clone(), "{}"))]).await;
    expect_headers(&arrived[0].headers, &headers);
}

/// Empty, text, every byte: a body is never looked into.
pub async fn bodies_arrive_byte_for_byte<F: TransportFixture>(fixture: &F) {
    let bodies =
        [Bytes::new(), Bytes::from_static(b"{\"OrderId\":7}"), (0..=255).rev().collect(), "\0".into()];
    let send = |body: &Bytes| Arc::new(Message::new(message("1", TOPIC).headers.clone(), body.clone()));
    let messages: Vec<_> = bodies.iter().map(send).collect();
    let arrived: Vec<Bytes> =
        carry(fixture, &messages).await.into_iter().map(|incoming| incoming.body).collect();
    assert_eq!(arrived, bodies);
}

/// A megabyte, which takes many frames on most wires, between two small ones.
pub async fn a_large_body_arrives<F: TransportFixture>(fixture: &F) {
    let large: Bytes = (0..1024 * 1024_u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    let message_of = |body: Bytes| Arc::new(Message::new(message("1", TOPIC).headers.clone(), body));
    let sent = [message_of("before".into()), message_of(large.clone()), message_of("after".into())];
    let arrived = carry(fixture, &sent).await;
    assert!(arrived[1].body == large, "the body of a megabyte came otherwise");
    assert_eq!((&arrived[0].body[..], &arrived[2].body[..]), (&b"before"[..], &b"after"[..]));
}

/// What went wrong on our side, and what people did about it, is nothing for others to read.
pub async fn the_last_error_is_not_sent<F: TransportFixture>(fixture: &F) {
    let mut headers = message("1", TOPIC).headers.clone();
    let stays = [names::EXCEPTION, names::AUDIT, names::BROKER_DELAY];
    for name in stays {
        headers.insert(name, "password=secret");
    }
    headers.insert("after", "it");
    let arrived = carry(fixture, &[Arc::new(Message::new(headers, "{}"))]).await;
    assert!(stays.iter().all(|name| !arrived[0].headers.contains(name)), "{:?}", arrived[0].headers);
    assert_eq!(arrived[0].headers.get("after"), Some("it"));
    let leaked =
        arrived[0].properties.iter().any(|(_, value)| value.is_some_and(|value| value.contains("secret")));
    assert!(!leaked, "nor by another way: {:?}", arrived[0].properties);
}

/// A message that no bus has made: no id, no name, any header, a body that is no text.
pub async fn a_foreign_message_arrives_as_it_is<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &["order.#"], 10).await;
    let body = Bytes::from_static(b"\xff\xfe\0 not json");
    fixture.publish_raw("order.created.elsewhere", &Headers::new(), body.clone()).await;
    let foreign: Headers = [("x-origin", "elsewhere"), (names::EXCEPTION, "theirs")].into_iter().collect();
    fixture.publish_raw(TOPIC, &foreign, Bytes::new()).await;
    bus.send_routed(&[message("ours", TOPIC)]).await;
    let arrived = accept(&mut consumer, 3).await;
    assert_eq!(arrived[0].routing_key, "order.created.elsewhere");
    assert_eq!(arrived[0].body, body);
    expect_headers(&arrived[0].headers, &Headers::new());
    expect_headers(&arrived[1].headers, &foreign);
    assert_eq!(ids(&arrived[2..]), ["ours"], "what comes after it is not harmed");
}
