//! What RabbitMQ would refuse is refused by `start` or `publish`, on the real servers.

use cap_core::error::{StartError, TransportErrorKind};
use cap_core::prelude::*;
use cap_core::storage::{Reason, Side};
use cap_core::{CapBuilder, Failure};
use cap_tests::{Scene, amqp_url, heard, scene};
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::sync::mpsc;

async fn channel() -> Channel {
    let connection = Connection::connect(&amqp_url(), ConnectionProperties::default()).await.unwrap();
    connection.create_channel().await.unwrap()
}

async fn fails_to_start(builder: CapBuilder, reason: &str) {
    match builder.start().await {
        Err(StartError::Transport(error)) => {
            assert_eq!(error.kind(), TransportErrorKind::Unusable, "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
        Err(error) => panic!("it fails for another reason: {error}"),
        Ok(_) => panic!("it starts"),
    }
}

/// Issue 8, row 6.
#[tokio::test]
async fn an_exchange_of_another_type_fails_the_start() {
    scene(async |scene: &Scene| {
        let channel = channel().await;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let kind = ExchangeKind::Direct;
        channel.exchange_declare(scene.name().into(), kind, durable, FieldTable::default()).await.unwrap();
        fails_to_start(scene.builder(), "another type").await;
        fails_to_start(scene.builder().subscribe("work", async |_: u32| ()), "another type").await;
        channel.exchange_delete(scene.name().into(), ExchangeDeleteOptions::default()).await.unwrap();
        scene.start(scene.builder()).await;
    })
    .await;
}

/// Issue 8, row 11.
#[tokio::test]
async fn a_queue_that_is_a_stream_fails_the_start() {
    scene(async |scene: &Scene| {
        let channel = channel().await;
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        let mut stream = FieldTable::default();
        stream.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
        let queue = scene.queue("main");
        channel.queue_declare(queue.as_str().into(), durable, stream).await.unwrap();
        fails_to_start(scene.builder().subscribe("work", async |_: u32| ()), "is a stream").await;
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        scene.start(scene.builder().subscribe("work", async |_: u32| ())).await;
    })
    .await;
}

#[track_caller]
fn assert_unsendable<T>(result: Result<T, PublishError>) {
    match result {
        Err(error @ PublishError::Unsendable { .. }) => {
            let text = error.to_string();
            assert!(["\"CC\"", "\"BCC\"", "frame_max"].iter().any(|part| text.contains(part)), "{text}");
        }
        Err(error) => panic!("it is refused for another reason: {error}"),
        Ok(_) => panic!("it is accepted"),
    }
}

/// Issue 8, row 14: wherever it is published, and nothing else of the transaction suffers.
#[tokio::test]
async fn a_header_that_the_broker_refuses_is_refused_by_publish() {
    scene(async |scene: &Scene| {
        let (tell, mut told) = mpsc::channel(16);
        let (fail, mut failures) = mpsc::channel::<Failure>(16);
        let good = tell.clone();
        let builder = scene
            .builder()
            .on_failed(move |failure| {
                let fail = fail.clone();
                async move { fail.send(failure).await.unwrap() }
            })
            .subscribe("good", move |number: u32| {
                let tell = good.clone();
                async move { tell.send(number).await.unwrap() }
            })
            .subscribe("publishes", move |number: u32, publisher: Publisher| {
                let tell = tell.clone();
                async move {
                    assert_unsendable(publisher.publish("good", &0).header("CC", "a").await);
                    tell.send(number).await.unwrap();
                }
            })
            .subscribe("replies", async |number: u32, headers: CapHeaders| {
                headers.add_response_header("BCC", "a");
                Reply(number)
            });
        let cap = scene.start(builder).await;
        assert_unsendable(cap.publish("good", &0).header("CC", "a").await);
        assert_unsendable(cap.publish("good", &0).header("BCC", "").await);
        assert_unsendable(cap.publish("good", &0).header("much", "x".repeat(200_000)).await);
        assert_unsendable(cap.publish_all("good", [0, 0]).header("CC", "a").await);
        let mut own = cap_postgres::begin(&cap, scene.pool()).await.unwrap();
        assert_unsendable(cap.publish("good", &0).header("CC", "a").within(&mut own).await);
        cap.publish("good", &1).header("cc", "a").within(&mut own).await.unwrap();
        own.commit().await.unwrap();
        assert_eq!(heard(&mut told).await, 1);
        let mut plain = scene.pool().begin().await.unwrap();
        assert_unsendable(cap.publish("good", &0).header("CC", "a").within(&mut plain).await);
        cap.publish("good", &2).within(&mut plain).await.unwrap();
        plain.commit().await.unwrap();
        assert_eq!(heard(&mut told).await, 2);
        cap.publish("publishes", &3).await.unwrap();
        assert_eq!(heard(&mut told).await, 3);
        cap.publish("replies", &4).callback("good").await.unwrap();
        let failure = heard(&mut failures).await;
        assert_eq!((failure.side, failure.reason, failure.attempts), (Side::Inbox, Reason::Permanent, 1));
        assert_eq!(cap.messages().published().list().await.unwrap().len(), 4);
    })
    .await;
}
