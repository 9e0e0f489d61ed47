//! Exchanges and queues that are there already, declared by somebody else in another way.

use std::collections::BTreeMap;

use crate::support;
use crate::support::log::Log;
use crate::support::{Place, message, plain_channel, receive, soon, start};
use cap_core::error::TransportErrorKind;
use cap_core::transport::{BrokerDelay, Sent, Transport};
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

fn arguments<const N: usize>(arguments: [(&str, AMQPValue); N]) -> FieldTable {
    FieldTable::from(BTreeMap::from(arguments.map(|(name, value)| (name.into(), value))))
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

async fn declare(
    channel: &Channel,
    exchange: &str,
    kind: ExchangeKind,
    options: ExchangeDeclareOptions,
    with: FieldTable,
) {
    channel.exchange_declare(exchange.into(), kind, options, with).await.unwrap();
}

const DURABLE: ExchangeDeclareOptions = ExchangeDeclareOptions {
    passive: false,
    durable: true,
    auto_delete: false,
    internal: false,
    nowait: false,
};

/// Issue 8, row 6.
#[tokio::test]
async fn exchange_with_an_alternate_exchange_is_joined_with_warning() {
    let (log, _guard) = Log::here("info");
    let place = Place::new();
    let channel = plain_channel().await;
    let alternate = arguments([("alternate-exchange", text("amq.fanout"))]);
    declare(&channel, &place.exchange, ExchangeKind::Topic, DURABLE, alternate.clone()).await;
    let transport = place.started();
    soon(transport.probe()).await.unwrap();
    let mut consumer = soon(transport.consume(&place.spec("q", &["p"], 10))).await.unwrap();
    assert_eq!(*soon(transport.send(&[message("1", "p", "{}")])).await[0].as_ref().unwrap(), Sent::Routed);
    assert_eq!(receive(&mut consumer, 1).await[0].properties.get("message-id"), Some("1"));
    let warned = log.troubles();
    assert!(
        matches!(&*warned, [line] if line.contains("alternate exchange") && line.contains(&place.exchange)),
        "{warned:?}"
    );
    // It is joined by passive declaration only; should it be deleted, it is declared anew.
    channel.exchange_delete(place.exchange.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    let sent = async { while soon(transport.send(&[message("2", "p", "{}")])).await.remove(0).is_err() {} };
    soon(sent).await;
    declare(&channel, &place.exchange, ExchangeKind::Topic, DURABLE, FieldTable::default()).await;
}

/// Issue 8, row 6: an argument that this broker does not compare is no difference at all.
#[tokio::test]
async fn exchange_with_an_unknown_argument_is_joined_silently() {
    let (log, _guard) = Log::here("info");
    let place = Place::new();
    let channel = plain_channel().await;
    declare(&channel, &place.exchange, ExchangeKind::Topic, DURABLE, arguments([("x-note", text("n"))]))
        .await;
    let transport = place.started();
    soon(transport.probe()).await.unwrap();
    drop(soon(transport.consume(&place.spec("q", &["p"], 10))).await.unwrap());
    assert_eq!(log.troubles(), [""; 0]);
}

/// Issue 8, row 6: `start` fails with what is Unusable.
#[tokio::test]
async fn exchange_of_another_shape_is_rejected_naming_the_difference() {
    let alternate = || arguments([("alternate-exchange", text("amq.fanout"))]);
    for (property, kind, options, with) in [
        ("type", ExchangeKind::Fanout, DURABLE, FieldTable::default()),
        ("type", ExchangeKind::Direct, DURABLE, alternate()),
        (
            "durable",
            ExchangeKind::Topic,
            ExchangeDeclareOptions { durable: false, ..DURABLE },
            FieldTable::default(),
        ),
        (
            "auto_delete",
            ExchangeKind::Topic,
            ExchangeDeclareOptions { auto_delete: true, ..DURABLE },
            alternate(),
        ),
        ("internal", ExchangeKind::Topic, ExchangeDeclareOptions { internal: true, ..DURABLE }, alternate()),
    ] {
        let (log, _guard) = Log::here("info");
        let place = Place::new();
        let channel = plain_channel().await;
        declare(&channel, &place.exchange, kind, options, with).await;
        let transport = place.started();
        let advice = format!("RabbitMQ: exchange \"{}\" exists with another {property} than", place.exchange);
        for error in [
            soon(transport.probe()).await.unwrap_err(),
            soon(transport.consume(&place.spec("q", &["p"], 1))).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), TransportErrorKind::Unusable, "{error}");
            assert!(error.to_string().starts_with(&advice), "{error}");
        }
        // No message is to blame for it.
        let error = soon(transport.send(&[message("1", "p", "{}")])).await.remove(0).unwrap_err();
        assert!(error.is_unavailable() && error.requires_operator(), "{error}");
        assert!(error.to_string().starts_with(&advice), "{error}");
        assert_eq!(log.troubles(), [""; 0], "the bus says it, once");
    }
}

/// Issue 8, row 11: whatever arguments it has, whatever this bus would declare, and whoever it belongs to.
#[tokio::test]
async fn a_stream_is_refused_with_the_reason() {
    let place = Place::new();
    let channel = plain_channel().await;
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    let stream = |more: &[(&str, AMQPValue)]| {
        let mut with = arguments([("x-queue-type", text("stream"))]);
        for (name, value) in more {
            with.insert((*name).into(), value.clone());
        }
        with
    };
    for (name, with) in [
        ("plain", stream(&[])),
        ("bounded", stream(&[("x-max-length-bytes", AMQPValue::LongLongInt(1_000_000))])),
        ("aged", stream(&[("x-max-age", text("1D")), ("x-max-length-bytes", AMQPValue::LongInt(5_000_000))])),
    ] {
        channel.queue_declare(place.queue(name).as_str().into(), durable, with).await.unwrap();
        let quorum = cap_rabbitmq::RabbitMq::new(support::amqp_url()).exchange(&place.exchange);
        for transport in [place.transport(), quorum, place.transport().dotnet_queues()] {
            let transport = support::start(transport);
            for existing in [false, true] {
                let (log, _guard) = Log::here("info");
                let mut spec = place.spec(name, &["p"], 10);
                spec.existing = existing;
                let error = soon(transport.consume(&spec)).await.unwrap_err();
                assert_eq!(error.kind(), TransportErrorKind::Unusable, "{name}: {error}");
                assert!(
                    error.to_string().contains("is a stream") && error.to_string().contains(name),
                    "{error}"
                );
                assert_eq!(log.troubles(), [""; 0]);
            }
            soon(transport.close()).await;
        }
    }
}

/// Issue 8, row 11: a queue that becomes a stream while the group consumes it.
#[tokio::test]
async fn queue_replaced_by_a_stream_is_rejected_when_joined_again() {
    let place = Place::new();
    let channel = plain_channel().await;
    let transport = place.started();
    let spec = place.spec("q", &["p"], 10);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    channel.queue_delete((&*spec.group).into(), QueueDeleteOptions::default()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    let stream = arguments([("x-queue-type", text("stream"))]);
    channel.queue_declare((&*spec.group).into(), durable, stream).await.unwrap();
    soon(cap_core::transport::Consumer::receive(&mut consumer, 1)).await.unwrap_err();
    let error = soon(transport.consume(&spec)).await.unwrap_err();
    assert!(error.to_string().contains("is a stream"), "{error}");
    channel.queue_delete((&*spec.group).into(), QueueDeleteOptions::default()).await.unwrap();
    drop(soon(transport.consume(&spec)).await.unwrap());
}

/// Asking for the type of a queue of somebody else's must never declare one.
#[tokio::test]
async fn a_queue_that_is_asked_about_is_never_declared() {
    let place = Place::new();
    let transport = place.started();
    let mut spec = place.spec("absent", &["p"], 10);
    spec.existing = true;
    let error = soon(transport.consume(&spec)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let channel = plain_channel().await;
    let asks = arguments([("x-queue-type", text("cap-asks-for-the-type"))]);
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare((&*spec.group).into(), durable, asks).await.unwrap_err();
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let channel = plain_channel().await;
    channel.queue_declare((&*spec.group).into(), passive, FieldTable::default()).await.unwrap_err();
}

/// A .NET member of the group would handle the copy that comes back, which has no body. Only a queue that is as this bus
/// declares it has no such members.
#[tokio::test]
async fn retries_of_groups_that_may_be_shared_stay_off_the_broker() {
    let place = Place::new();
    let channel = plain_channel().await;
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    let dotnet = arguments([("x-message-ttl", AMQPValue::LongInt(864_000_000))]);
    let joined = place.spec("joined", &["p"], 10);
    channel.queue_declare((&*joined.group).into(), durable, dotnet).await.unwrap();

    let transport = place.started();
    let own = place.spec("own", &["p"], 10);
    assert!(!transport.delays_retries_of(&own.group), "nobody knows yet");
    let mut consumers = vec![soon(transport.consume(&own)).await.unwrap()];
    consumers.push(soon(transport.consume(&joined)).await.unwrap());
    assert!(transport.delays_retries_of(&own.group));
    assert!(!transport.delays_retries_of(&joined.group));
    let existing = joined.clone().on_existing_queue();
    consumers.push(soon(transport.consume(&existing)).await.unwrap());
    assert!(!transport.delays_retries_of(&existing.group));
    drop(consumers);

    // The queue is deleted and made anew by somebody else: what was known of it does not hold any more.
    channel.queue_delete((&*own.group).into(), QueueDeleteOptions::default()).await.unwrap();
    let dotnet = arguments([("x-message-ttl", AMQPValue::LongInt(864_000_000))]);
    channel.queue_declare((&*own.group).into(), durable, dotnet).await.unwrap();
    drop(soon(transport.consume(&own)).await.unwrap());
    assert!(!transport.delays_retries_of(&own.group));

    let shared = start(place.transport().dotnet_queues());
    let for_dotnet = place.spec("for-dotnet", &["p"], 10);
    drop(soon(shared.consume(&for_dotnet)).await.unwrap());
    assert!(!shared.delays_retries_of(&for_dotnet.group) && shared.broker_delay().is_some());
}
