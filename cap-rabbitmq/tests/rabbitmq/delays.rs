//! Delays on a real broker: what is declared for them, and what is done when it is not as it should be.

use std::sync::Arc;
use std::time::Duration;

use crate::support;
use crate::support::{Place, message, receive, soon, today};
use cap_core::error::{TransportError, TransportErrorKind};
use cap_core::message::Message;
use cap_core::transport::{BrokerDelay, Delayed, Destination, Incoming, Sent, Transport};
use cap_rabbitmq::RabbitMq;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..Default::default() }
}

fn delayed(id: &str, milliseconds: u64, to: &Destination) -> Delayed {
    let delay = Duration::from_millis(milliseconds);
    Delayed::new(message(id, "p", "{}"), delay, to.clone())
}

async fn delay(transport: &RabbitMq, messages: &[Delayed]) -> Vec<Result<(), TransportError>> {
    soon(transport.delay(messages)).await
}

async fn delay_all(transport: &RabbitMq, messages: &[Delayed]) {
    for answer in delay(transport, messages).await {
        answer.unwrap();
    }
}

fn ids(messages: &[Incoming]) -> Vec<&str> {
    messages.iter().map(|message| message.properties.get("message-id").unwrap()).collect()
}

/// What the documentation says of a delay queue of a group.
fn arguments(group: &str, milliseconds: i64) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(milliseconds));
    arguments.insert("x-expires".into(), AMQPValue::LongLongInt(2 * 86_400_000 + milliseconds));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(group));
    arguments
}

/// The name of the delay queue in which something waits now.
async fn waiting_in(prefix: &str, milliseconds: u64) -> String {
    let channel = support::plain_channel().await;
    let name = |day: u64| format!("{prefix}.{milliseconds}.{day}");
    let today = today();
    // The day may have changed since it was declared.
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    match channel.queue_declare(name(today).into(), passive, FieldTable::default()).await {
        Ok(_) => name(today),
        Err(_) => name(today - 1),
    }
}

#[tokio::test]
async fn mixed_delays_come_in_the_order_in_which_they_end() {
    let place = Place::new();
    let transport = place.started();
    let spec = place.spec("q", &["p"], 10);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    let to = Destination::Group(Arc::clone(&spec.group));
    delay_all(&transport, &[delayed("ten minutes", 600_000, &to), delayed("a second", 1000, &to)]).await;
    delay_all(&transport, &[delayed("a moment", 200, &to)]).await;
    assert_eq!(ids(&receive(&mut consumer, 2).await), ["a moment", "a second"]);
    let queue = waiting_in(&format!("cap.delay.queue.{}", spec.group), 600_000).await;
    support::until_ready(&support::plain_channel().await, &queue, 1).await;
}

/// The broker takes a second declaration only if it says the same.
#[tokio::test]
async fn a_delay_queue_is_declared_as_documented() {
    let place = Place::new();
    let transport = place.started();
    let group = place.queue("q");
    delay_all(&transport, &[delayed("1", 600_000, &Destination::Group(group.as_str().into()))]).await;
    let queue = waiting_in(&format!("cap.delay.queue.{group}"), 600_000).await;
    let channel = support::plain_channel().await;
    let same = channel.queue_declare(queue.as_str().into(), durable(), arguments(&group, 600_000)).await;
    same.unwrap();
    let other = channel.queue_declare(queue.into(), durable(), arguments(&group, 600_001)).await.unwrap_err();
    assert!(
        matches!(other.kind(), lapin::ErrorKind::ProtocolError(error)
            if *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)),
        "{other}"
    );
}

#[tokio::test]
async fn a_delay_queue_deleted_under_the_bus_is_declared_anew() {
    let place = Place::new();
    let transport = place.started();
    let spec = place.spec("q", &["p"], 10);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    let group = Destination::Group(Arc::clone(&spec.group));
    delay_all(&transport, &[delayed("1", 200, &group), delayed("2", 200, &Destination::Topic)]).await;
    receive(&mut consumer, 2).await;
    let channel = support::plain_channel().await;
    let (to_queue, to_exchange) =
        (format!("cap.delay.queue.{}", spec.group), format!("cap.delay.exchange.{}", place.exchange));
    for prefix in [to_queue, to_exchange] {
        let queue = waiting_in(&prefix, 200).await;
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }
    delay_all(&transport, &[delayed("3", 200, &group)]).await;
    assert_eq!(ids(&receive(&mut consumer, 1).await), ["3"]);
    // Its exchange has gone with it, so that the broker closes the channel. It is well again at the second call.
    if let Err(error) = delay(&transport, &[delayed("4", 200, &Destination::Topic)]).await.remove(0) {
        assert!(error.is_unavailable(), "{error}");
        delay_all(&transport, &[delayed("4", 200, &Destination::Topic)]).await;
    }
    assert_eq!(ids(&receive(&mut consumer, 1).await), ["4"]);
}

#[tokio::test]
async fn delay_queue_with_other_properties_is_rejected_with_advice() {
    let place = Place::new();
    let transport = place.started();
    let spec = place.spec("q", &["p"], 10);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    let channel = support::plain_channel().await;
    for day in [today(), today() + 1] {
        let name = format!("cap.delay.queue.{}.1000.{day}", spec.group);
        channel.queue_declare(name.into(), durable(), FieldTable::default()).await.unwrap();
    }
    let to = Destination::Group(Arc::clone(&spec.group));
    let batch = [delayed("1", 200, &to), delayed("2", 1000, &to), delayed("3", 200, &Destination::Topic)];
    let sending = [message("4", "p", "{}")];
    let (answers, sent) = tokio::join!(delay(&transport, &batch), transport.send(&sending));
    assert_eq!(*sent[0].as_ref().unwrap(), Sent::Routed);
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_err(TransportError::kind)).collect();
    assert_eq!(kinds, [Ok(&()), Err(TransportErrorKind::Refused), Ok(&())], "{answers:?}");
    let error = answers[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("is there with other properties") && error.contains(".1000."), "{error}");
    receive(&mut consumer, 3).await;
    let tomorrow = format!("cap.delay.queue.{}.1000.{}", spec.group, today() + 1);
    channel.queue_delete(tomorrow.into(), QueueDeleteOptions::default()).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_delayed_is_refused_alone() {
    let place = Place::new();
    let transport = place.started();
    let spec = place.spec("q", &["p"], 10);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    let to = Destination::Group(Arc::clone(&spec.group));
    let mut nameless = delayed("", 200, &to);
    nameless.message = Arc::new(Message::default());
    let batch = [delayed("1", 50 * 86_400_000, &to), nameless, delayed("3", 200, &to)];
    let answers = delay(&transport, &batch).await;
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_err(TransportError::kind)).collect();
    let (refused, invalid) = (TransportErrorKind::Refused, TransportErrorKind::Invalid);
    assert_eq!(kinds, [Err(refused), Err(invalid), Ok(&())], "{answers:?}");
    assert_eq!(ids(&receive(&mut consumer, 1).await), ["3"]);
}

/// A message out of a dead-letter queue has the header as text. The broker would drop for a circle what dies in the
/// same queue again, if it took that for its own.
#[tokio::test]
async fn a_message_that_died_before_is_delayed_like_any_other() {
    let place = Place::new();
    let transport = place.started();
    let spec = place.spec("q", &["p"], 10);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    let to = Destination::Group(Arc::clone(&spec.group));
    delay_all(&transport, &[delayed("1", 200, &to)]).await;
    let first = receive(&mut consumer, 1).await.remove(0);
    assert!(first.delayed);
    // Exactly what came, with all that the broker has added.
    let again = Arc::new(Message::new(first.headers, first.body));
    let mut delayed_again = delayed("", 200, &to);
    delayed_again.message = again;
    delay_all(&transport, &[delayed_again]).await;
    let second = receive(&mut consumer, 1).await.remove(0);
    assert!(second.delayed && !second.redelivered);
}
