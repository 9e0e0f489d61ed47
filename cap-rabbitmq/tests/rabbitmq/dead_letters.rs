//! Queues of an operator's: a dead-letter queue that the bus consumes, and how its messages got there.

use crate::support;
use crate::support::{Place, message, receive, soon};
use cap_core::transport::{Acknowledge, Consumer, Sent, Transport};
use cap_rabbitmq::{DeathReason, XDeath};
use lapin::options::{BasicGetOptions, BasicRejectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

#[tokio::test]
async fn dead_letter_queue_of_an_operator_is_consumed() {
    let place = Place::new();
    let (work, dead) = (place.queue("work"), place.queue("dead"));
    let channel = support::plain_channel().await;
    place.declare_exchange(&channel).await;
    // What a policy of the operator's does too.
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(dead.as_str().into()));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(work.as_str().into(), durable, arguments).await.unwrap();
    let transport = place.started();
    let existing = place.spec("dead", &["p"], 10).on_existing_queue();
    let error = soon(transport.consume(&existing)).await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("is not there"), "{error}");
    channel.queue_declare(dead.as_str().into(), durable, FieldTable::default()).await.unwrap();
    let mut consumer = soon(transport.consume(&existing)).await.unwrap();

    let member = soon(transport.consume(&place.spec("work", &["p"], 10))).await.unwrap();
    drop(member);
    assert_eq!(*soon(transport.send(&[message("1", "p", "{}")])).await[0].as_ref().unwrap(), Sent::Routed);
    let got = soon(async {
        loop {
            let got = channel.basic_get(work.as_str().into(), BasicGetOptions::default()).await.unwrap();
            if let Some(got) = got {
                break got;
            }
        }
    })
    .await;
    channel.basic_reject(got.delivery.delivery_tag, BasicRejectOptions { requeue: false }).await.unwrap();

    let came = receive(&mut consumer, 1).await.remove(0);
    assert!(!came.delayed, "nobody has delayed it");
    assert_eq!(came.headers.get("cap-msg-id"), Some("1"));
    let deaths = XDeath::read(&came.headers).unwrap().0;
    assert_eq!(deaths.len(), 1);
    assert_eq!((deaths[0].queue.as_str(), &deaths[0].reason), (work.as_str(), &DeathReason::Rejected));
    assert_eq!((deaths[0].exchange.as_str(), deaths[0].count), (place.exchange.as_str(), 1));
    assert_eq!(deaths[0].routing_keys, ["p"]);
    assert!(deaths[0].time.is_some());
    consumer.acknowledge(&[came.tag], Acknowledge::Accept).await.unwrap();
}
