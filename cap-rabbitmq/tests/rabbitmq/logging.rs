//! What is logged, and what must not be.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support;
use crate::support::log::Log;
use crate::support::proxy::Proxy;
use crate::support::{Place, message, soon};
use cap_core::transport::{Acknowledge, BrokerDelay, Consumer, Delayed, Destination, Sent, Transport};
use cap_rabbitmq::RabbitMq;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use tracing_subscriber::filter::LevelFilter;

/// From version 4 on the broker drops what it has delivered often, and it is version 4 here by hearsay.
#[tokio::test]
async fn a_queue_from_before_the_delivery_limit_is_warned_of() {
    let (log, _guard) = Log::here("info");
    let place = Place::new();
    let proxy = Proxy::start_as(Some(4)).await;
    let channel = support::plain_channel().await;
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    let argument = |name: &str, value| FieldTable::from(BTreeMap::from([(name.into(), value)]));
    let quorum = argument("x-queue-type", AMQPValue::LongString("quorum".into()));
    let dotnet = argument("x-message-ttl", AMQPValue::LongInt(864_000_000));
    let transport = support::start(RabbitMq::new(proxy.url()).exchange(&place.exchange));
    for (name, arguments) in [("old", Some(quorum)), ("net", Some(dotnet)), ("new", None)] {
        let spec = place.spec(name, &["p"], 10);
        if let Some(arguments) = arguments {
            channel.queue_declare((&*spec.group).into(), durable, arguments).await.unwrap();
        }
        for _ in 0..2 {
            drop(soon(transport.consume(&spec)).await.unwrap());
        }
    }
    let log = log.text();
    let warned: Vec<_> = log.lines().filter(|line| line.contains(" WARN cap_rabbitmq")).collect();
    assert_eq!(warned.len(), 2, "{log}");
    assert!(warned.iter().all(|line| line.contains("x-delivery-limit") && line.contains(".old")), "{log}");
}

/// Issue 8, rows B and 15: neither queues that are new, nor those that are there, nor such as somebody else has declared
/// in his own way are worth an error of lapin's; nor is the end of a transport that is at work.
#[tokio::test(flavor = "multi_thread")]
async fn clean_starts_and_ends_log_nothing_above_info() {
    let (log, _guard) = Log::here("info");
    let place = Place::new();
    let channel = support::plain_channel().await;
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    let foreign = place.queue("foreign");
    let argument = FieldTable::from(BTreeMap::from([("x-max-length".into(), AMQPValue::LongInt(1000))]));
    channel.queue_declare(foreign.as_str().into(), durable, argument).await.unwrap();
    channel.queue_declare(place.queue("dead").as_str().into(), durable, FieldTable::default()).await.unwrap();
    for round in 0..4 {
        let transport = place.started();
        soon(transport.probe()).await.unwrap();
        let mut consumers = Vec::new();
        for name in ["one", "two", "foreign", "dead"] {
            let mut spec = place.spec(name, &["p"], 10);
            spec.existing = name == "dead";
            consumers.push(soon(transport.consume(&spec)).await.unwrap());
        }
        let message = message("1", "p", "{}");
        assert_eq!(
            *soon(transport.send(std::slice::from_ref(&message))).await[0].as_ref().unwrap(),
            Sent::Routed
        );
        let to = Destination::Group(place.queue("one").into());
        let delayed = Delayed::new(message, std::time::Duration::from_millis(200), to);
        soon(transport.delay(&[delayed])).await.remove(0).unwrap();
        let tags: Vec<_> = support::receive(&mut consumers[0], 1).await.iter().map(|got| got.tag).collect();
        if round % 2 == 0 {
            consumers[0].acknowledge(&tags, Acknowledge::Accept).await.unwrap();
        }
        drop(consumers);
        soon(transport.close()).await;
    }
    assert_eq!(log.troubles(), [""; 0]);
    assert!(log.text().contains("connected to RabbitMQ"), "the log was on");
}

/// lapin's thread has a subscriber of its own making, so the one that counts is set for the whole process.
#[tokio::test]
async fn neither_bodies_nor_passwords_are_logged() {
    let log = Log::default();
    tracing_subscriber::fmt().with_writer(log.clone()).with_env_filter("debug").with_ansi(false).init();
    let place = Place::new();
    let proxy = Proxy::start().await;
    proxy.replace(b"\x02XCS", b"\x02CCS");
    let transport = support::start(place.transport_at(&proxy.url()));
    let answers = soon(transport.send(&[message("7", "nobody.wants.this", "s3cret")])).await;
    assert_eq!(*answers[0].as_ref().unwrap(), Sent::Unrouted);
    // Over a channel that breaks, lapin complains on its own thread, and that must not be lost.
    let poison = {
        let mut headers = message("8", "t", "s3cret").headers.clone();
        headers.insert("XC", "not a list");
        Arc::new(cap_core::message::Message::new(headers, "s3cret"))
    };
    soon(transport.send(&[poison])).await.remove(0).unwrap_err();
    assert_eq!(LevelFilter::current(), LevelFilter::DEBUG, "no more is asked for than the subscriber wants");
    soon(transport.close()).await;
    let uri: lapin::uri::AMQPUri = support::amqp_url().parse().unwrap();
    let log = log.text();
    assert!(log.contains("connected to RabbitMQ"), "{log}");
    assert!(log.contains("ERROR io_loop: lapin::channel: Channel closed"), "{log}");
    // The body as text, or as the numbers of its bytes.
    for secret in ["s3cret", "115, 51, 99, 114, 101, 116", &format!(":{}@", uri.authority.userinfo.password)]
    {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}
