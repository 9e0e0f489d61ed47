//! A plain AMQP client as the peer, and the wire byte for byte: the test vectors of the CAP wire format.

use std::time::Duration;

use cap_core::prelude::*;
use cap_tests::{heard, scene};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::AMQPValue;
use tokio::sync::mpsc;

use crate::orders::{DeductQty, OrderCreated, QtyDeducted};

/// The headers of a delivery, and that each is a long string or void: nothing else is CAP's.
fn headers(delivery: &Delivery) -> Vec<(String, Option<String>)> {
    let table = delivery.properties.headers().as_ref().unwrap().inner();
    table
        .iter()
        .map(|(name, value)| {
            let value = match value {
                AMQPValue::LongString(text) => Some(text.to_string()),
                AMQPValue::Void => None,
                other => panic!("{name} is a {other:?}"),
            };
            (name.to_string(), value)
        })
        .collect()
}

fn header(delivery: &Delivery, name: &str) -> Option<String> {
    headers(delivery).into_iter().find(|(found, _)| found == name).and_then(|(_, value)| value)
}

/// `MM/dd/yyyy HH:mm:ss`, as seconds of the day with the date before it.
fn assert_sent_time(text: &str) {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "00/00/0000 00:00:00", "{text}");
}

#[tokio::test]
async fn what_we_publish_is_the_test_vector() {
    scene(async |scene| {
        let cap = scene.start(scene.builder().subscribe("something.else", async || ())).await;
        let foreign = scene.foreign().await;
        let mut listener = foreign.listen("order.created").await;
        let id = "4901861535869464577";
        cap.publish("order.created", &OrderCreated { order_id: 7 }).message_id(id).await.unwrap();
        let delivery = listener.next().await;
        assert_eq!(delivery.exchange.as_str(), scene.name());
        assert_eq!(delivery.routing_key.as_str(), "order.created");
        assert_eq!(delivery.data, br#"{"OrderId":7}"#);
        let table = delivery.properties.headers().clone().unwrap();
        let nothing_else =
            BasicProperties::default().with_message_id(id.into()).with_delivery_mode(2).with_headers(table);
        assert_eq!(delivery.properties, nothing_else);
        let mut headers = headers(&delivery);
        let sent = headers.iter().position(|(name, _)| name == "cap-senttime").unwrap();
        let (_, sent) = headers.remove(sent);
        assert_sent_time(&sent.unwrap());
        let expected = [
            ("cap-callback-name", None),
            ("cap-corr-id", Some(id)),
            ("cap-corr-seq", Some("0")),
            ("cap-msg-id", Some(id)),
            ("cap-msg-name", Some("order.created")),
            ("cap-msg-type", Some("OrderCreated")),
        ];
        assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))));
    })
    .await;
}

#[tokio::test]
async fn callback_delay_headers_and_null_payload_on_the_wire() {
    scene(async |scene| {
        let cap = scene.start(scene.builder().subscribe("something.else", async || ())).await;
        let foreign = scene.foreign().await;
        let mut listener = foreign.listen("order.created").await;
        cap.publish("order.created", &())
            .callback("order.confirmed")
            .header("tenant", "acme")
            .delay(Duration::from_millis(1500))
            .await
            .unwrap();
        let delivery = listener.next().await;
        assert!(delivery.data.is_empty());
        assert_eq!(header(&delivery, "cap-callback-name").as_deref(), Some("order.confirmed"));
        assert_eq!(header(&delivery, "tenant").as_deref(), Some("acme"));
        assert_eq!(header(&delivery, "cap-delaytime").as_deref(), Some("00:00:01.5000000"));
        assert_sent_time(&header(&delivery, "cap-senttime").unwrap());
    })
    .await;
}

#[tokio::test]
async fn another_version_has_its_own_exchange_and_queues() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let builder = scene
            .builder()
            .configure(|options| {
                "v2".clone_into(&mut options.version);
                options.topic_prefix = Some("shop".to_owned());
            })
            .subscribe("order.created", move |order: OrderCreated, topic: Topic, headers: CapHeaders| {
                let tell = tell.clone();
                let group = headers.get("cap-msg-group").map(str::to_owned);
                async move { tell.send((order, topic.to_string(), group)).await }
            });
        scene.start(builder).await;
        let foreign = scene.foreign_of_version("v2").await;
        foreign.send_named("shop.order.created", "1", br#"{"OrderId":7}"#).await;
        let group = format!("{}.main.v2", scene.name());
        assert_eq!(
            heard(&mut told).await,
            (OrderCreated { order_id: 7 }, "shop.order.created".to_owned(), Some(group))
        );
    })
    .await;
}

async fn two_headers_and_the_answer(id: &str) {
    scene(async |scene| {
        let builder = scene.builder().subscribe(
            "place.order.qty.deducted",
            async |command: DeductQty, headers: CapHeaders| {
                headers.add_response_header("warehouse", "north");
                Reply(QtyDeducted { order_id: command.order_id, is_success: true })
            },
        );
        scene.start(builder).await;
        let foreign = scene.foreign().await;
        let mut listener = foreign.listen("place.order.mark.status").await;
        let body = br#"{"OrderId":1234,"Qty":2}"#;
        foreign.send_named("place.order.qty.deducted", "unasked", body).await;
        let topic = "place.order.qty.deducted";
        let asked = [
            ("cap-msg-id", id),
            ("cap-msg-name", topic),
            ("cap-callback-name", "place.order.mark.status"),
            ("cap-corr-seq", "4"),
        ];
        foreign.send(topic, &asked, body).await;
        // One message at a time and in order, so that the unasked one would have been answered before.
        let answer = listener.next().await;
        assert_eq!(answer.data, br#"{"OrderId":1234,"IsSuccess":true}"#);
        assert_eq!(header(&answer, "cap-corr-id").as_deref(), Some(id));
        assert_eq!(header(&answer, "cap-corr-seq").as_deref(), Some("5"));
        assert_eq!(header(&answer, "cap-msg-type").as_deref(), Some("Object"));
        assert_eq!(header(&answer, "warehouse").as_deref(), Some("north"));
        assert_eq!(
            header(&answer, "cap-msg-id"),
            answer.properties.message_id().as_ref().map(ToString::to_string)
        );
        assert_eq!(*answer.properties.delivery_mode(), Some(2));
    })
    .await;
}

#[tokio::test]
async fn two_headers_with_a_snowflake_are_answered() {
    two_headers_and_the_answer("4901861535869464577").await;
}

#[tokio::test]
async fn two_headers_with_a_guid_are_answered() {
    two_headers_and_the_answer("3f2504e0-4f89-11d3-9a0c-0305e82c3301").await;
}
