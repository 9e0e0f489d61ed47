//! Messages that nobody can handle as they are: parked with their reason, their raw body and their headers, in nobody's
//! way, and replayable once what was wrong is repaired.

use cap_core::prelude::*;
use cap_core::storage::{Reason, Side, Status};
use cap_core::{CapBuilder, Failure};
use cap_tests::{Scene, heard, long_strings, scene, until};
use lapin::BasicProperties;
use tokio::sync::mpsc;

use crate::orders::OrderCreated;

/// A bus that tells of every message that it parks.
fn telling(scene: &Scene) -> (CapBuilder, mpsc::Receiver<Failure>) {
    let (fail, failures) = mpsc::channel(16);
    let builder = scene.builder().on_failed(move |failure| {
        let fail = fail.clone();
        async move { fail.send(failure).await.unwrap() }
    });
    (builder, failures)
}

#[tokio::test]
async fn each_is_parked_with_its_reason_and_the_queue_goes_on() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(16);
        let (builder, mut failures) = telling(scene);
        // One of the messages names another topic than its routing key.
        let builder = builder.configure(|options| options.match_routing_key = false);
        let builder = builder.subscribe("order.#", async |_: OrderCreated| ()).subscribe(
            "good",
            move |number: usize| {
                let tell = tell.clone();
                async move { tell.send(number).await }
            },
        );
        let cap = scene.start(builder).await;
        let foreign = scene.foreign().await;
        let body = br#"{"OrderId": "seven"}"#;
        let (id, name, own) = ("cap-msg-id", "cap-msg-name", ("x", "kept"));
        let cases = [
            (vec![(name, "order.created"), own], Reason::MissingHeaders, "no cap-msg-id"),
            (vec![(id, "1"), own], Reason::MissingHeaders, "no cap-msg-name"),
            (vec![own], Reason::MissingHeaders, "\"order.created\""),
            (vec![(id, ""), (name, ""), own], Reason::MissingHeaders, name),
            (vec![(id, "2"), (name, "invoice.created"), own], Reason::NoSubscriber, "invoice.created"),
            (vec![(id, "3"), (name, "order.created"), own], Reason::Undecodable, "OrderCreated"),
        ];
        for (number, (headers, reason, words)) in cases.into_iter().enumerate() {
            foreign.send("order.created", &headers, body).await;
            foreign.send_named("good", &format!("good-{number}"), number.to_string().as_bytes()).await;
            let failure = heard(&mut failures).await;
            assert_eq!((failure.side, failure.reason), (Side::Inbox, reason), "{}", failure.error);
            assert!(failure.error.contains(words), "{}", failure.error);
            assert_eq!(heard(&mut told).await, number, "the queue goes on");
            let row = cap.messages().get(failure.id).await.unwrap().unwrap();
            assert_eq!((row.status, row.reason), (Status::Failed, Some(reason)));
            assert_eq!(row.message.body, &body[..], "the raw body is kept");
            assert_eq!(row.message.headers.get("x"), Some("kept"));
            assert!(row.last_error.unwrap().contains(words));
        }
        until("every delivery is acknowledged", async || {
            (foreign.waiting_in(&scene.queue("main")).await == 0).then_some(())
        })
        .await;
    })
    .await;
}

/// A delivery with neither headers nor properties.
#[tokio::test]
async fn a_delivery_with_nothing_at_all_is_parked_once() {
    scene(async |scene| {
        let (builder, mut failures) = telling(scene);
        let cap = scene.start(builder.subscribe("order.#", async |_: OrderCreated| ())).await;
        let foreign = scene.foreign().await;
        foreign.publish("order.created", BasicProperties::default(), b"").await;
        foreign.publish("order.created", BasicProperties::default(), b"").await;
        let (first, second) = (heard(&mut failures).await, heard(&mut failures).await);
        assert_ne!(first.id, second.id, "without an id, none is another's double");
        let parked = cap.messages().reason(Reason::MissingHeaders);
        assert_eq!(parked.count().await.unwrap(), 2);
    })
    .await;
}

#[tokio::test]
async fn they_run_once_the_service_is_mended() {
    scene(async |scene| {
        let (builder, mut failures) = telling(scene);
        let broken = scene.start(builder.subscribe("order.#", async |_: Vec<u32>| ())).await;
        let foreign = scene.foreign().await;
        let body = br#"{ "OrderId": 7 , "Extra": "\u00fc" }"#;
        foreign.send_named("order.created", "undecodable", body).await;
        // The routing key brings it here, and the header names a topic that nobody takes.
        let headers = [("cap-msg-id", "unhandled"), ("cap-msg-name", "invoice.created")];
        foreign.send("order.created", &headers, body).await;
        let headers = long_strings(&[("cap-msg-name", "order.created")]);
        foreign.publish("order.created", BasicProperties::default().with_headers(headers), body).await;
        let mut rows = Vec::new();
        for _ in 0..3 {
            rows.push(heard(&mut failures).await.id);
        }
        broken.shutdown().await.unwrap();

        let (tell, mut told) = mpsc::channel(8);
        let (builder, mut failures) = telling(scene);
        let hear = move |order: OrderCreated, raw: RawBody, topic: Topic, id: MessageId| {
            let tell = tell.clone();
            async move { tell.send((order, raw.0, topic.to_string(), id.to_string())).await }
        };
        let mended =
            scene.start(builder.subscribe("order.#", hear.clone()).subscribe("invoice.*", hear)).await;
        until("the rows are free", async || {
            let done = mended.messages().rerun(&rows).await.unwrap();
            rows.retain(|row| !done.contains(row));
            rows.is_empty().then_some(())
        })
        .await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            let (order, raw, topic, id) = heard(&mut told).await;
            assert_eq!(order, OrderCreated { order_id: 7 });
            assert_eq!(raw, &body[..], "byte for byte");
            ids.push((topic, id));
        }
        ids.sort();
        assert_eq!(ids[0], ("invoice.created".to_owned(), "unhandled".to_owned()));
        // The one without an id goes by its row's.
        assert!(ids[1..].contains(&("order.created".to_owned(), "undecodable".to_owned())));
        assert!(failures.try_recv().is_err());
    })
    .await;
}
