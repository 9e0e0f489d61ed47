//! The main job, end to end: publish, handle, answer; groups, wildcards, batches, ids.

use std::collections::BTreeSet;

use cap_core::prelude::*;
use cap_core::storage::{Reason, Side, Status};
use cap_core::{PublishError, Unrouted};
use cap_tests::{heard, scene, until};
use tokio::sync::mpsc;

use crate::orders::{DeductQty, QtyDeducted};

#[tokio::test]
async fn an_order_is_placed_and_the_answer_comes_to_the_callback() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let builder = scene
            .builder()
            .subscribe(
                Subscribe::to("place.order.qty.deducted").group("stock"),
                async |command: DeductQty| {
                    Reply(QtyDeducted { order_id: command.order_id, is_success: true })
                },
            )
            .subscribe("place.order.mark.status", move |status: QtyDeducted, headers: CapHeaders| {
                let tell = tell.clone();
                let correlation = headers.get("cap-corr-id").map(str::to_owned);
                async move { tell.send((status, correlation)).await }
            });
        let cap = scene.start(builder).await;
        let id = cap
            .publish("place.order.qty.deducted", &DeductQty { order_id: 1, qty: 2 })
            .callback("place.order.mark.status")
            .await
            .unwrap();
        let answer = heard(&mut told).await;
        assert_eq!(answer, (QtyDeducted { order_id: 1, is_success: true }, Some(id.to_string())));
        for side in [Side::Outbox, Side::Inbox] {
            until("success on both sides", async || {
                let rows = cap.messages().side(side).find(id.as_str()).await.unwrap();
                (rows.len() == 1 && rows[0].status == Status::Succeeded).then_some(())
            })
            .await;
        }
        assert!(cap.health().await.is_healthy());
    })
    .await;
}

/// A handler may answer with headers of its own, send the answer elsewhere, or not at all.
#[tokio::test]
async fn a_handler_controls_its_answer() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let hear = move |number: u32, topic: Topic, headers: CapHeaders| {
            let tell = tell.clone();
            let next = headers.get("cap-callback-name").map(str::to_owned);
            async move { tell.send((number, topic.to_string(), next)).await }
        };
        let builder = scene
            .builder()
            .subscribe("work", async |number: u32, headers: CapHeaders| {
                match number {
                    1 => headers.remove_callback(),
                    2 => headers.rewrite_callback("elsewhere"),
                    _ => headers.add_response_header("cap-callback-name", "chained"),
                }
                Reply(number)
            })
            .subscribe("asked", hear.clone())
            .subscribe("elsewhere", hear);
        let cap = scene.start(builder).await;
        cap.publish_all("work", [1, 2, 3]).callback("asked").await.unwrap();
        assert_eq!(heard(&mut told).await, (2, "elsewhere".to_owned(), None));
        assert_eq!(heard(&mut told).await, (3, "asked".to_owned(), Some("chained".to_owned())));
    })
    .await;
}

/// What a handler publishes leaves with its success; what a failed attempt published never does.
#[tokio::test]
async fn what_a_handler_publishes_leaves_only_with_its_success() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let builder = scene
            .builder()
            .subscribe("order.placed", async |order: u32, attempt: Attempt, publisher: Publisher| {
                publisher.publish("invoice.wanted", &(order, attempt.0)).await?;
                if attempt.0 < 3 { Err("not yet".into()) } else { Ok::<_, cap_core::BoxError>(()) }
            })
            .subscribe("invoice.wanted", move |wanted: (u32, u32)| {
                let tell = tell.clone();
                async move { tell.send(wanted).await }
            });
        let cap = scene.start(builder).await;
        cap.publish("order.placed", &7).await.unwrap();
        assert_eq!(heard(&mut told).await, (7, 3));
        let published = cap.messages().published().topic("invoice.wanted");
        assert_eq!(published.count().await.unwrap(), 1);
    })
    .await;
}

/// AMQP's rule on the broker and here: `*` is one word, `#` any number; the most specific handler of a group gets it.
#[tokio::test]
async fn wildcards_and_groups() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(16);
        let mut builder = scene.builder();
        for (pattern, group) in
            [("order.*", "a"), ("order.#", "a"), ("order.paid", "a"), ("#.paid", "b"), ("*.*.*", "b")]
        {
            let tell = tell.clone();
            builder = builder.subscribe(Subscribe::to(pattern).group(group), move |topic: Topic| {
                let tell = tell.clone();
                async move { tell.send(format!("{group} {pattern} {}", &*topic)).await }
            });
        }
        let cap = scene.start(builder).await;
        for topic in ["order", "order.paid", "order.sent-off", "order.a.b", "paid"] {
            cap.publish(topic, &()).await.unwrap();
        }
        let mut all = BTreeSet::new();
        for _ in 0..7 {
            all.insert(heard(&mut told).await);
        }
        let expected = [
            "a order.# order",
            "a order.# order.a.b",
            "a order.* order.sent-off",
            "a order.paid order.paid",
            "b #.paid order.paid",
            "b #.paid paid",
            "b *.*.* order.a.b",
        ];
        assert_eq!(all, expected.map(str::to_owned).into());
    })
    .await;
}

#[tokio::test]
async fn publish_all_stores_all_and_each_arrives_once() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(1000);
        let builder = scene.builder().subscribe("sensor.read", move |value: u32, headers: CapHeaders| {
            let tell = tell.clone();
            let tenant = headers.get("tenant").map(str::to_owned);
            async move { tell.send((value, tenant)).await }
        });
        let cap = scene.start(builder).await;
        let ids = cap.publish_all("sensor.read", 0..1000).header("tenant", "acme").await.unwrap();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 1000);
        let mut arrived = BTreeSet::new();
        for _ in 0..1000 {
            let (value, tenant) = heard(&mut told).await;
            assert_eq!(tenant.as_deref(), Some("acme"));
            assert!(arrived.insert(value), "{value} came twice");
        }
        assert_eq!(arrived, (0..1000).collect());
    })
    .await;
}

#[tokio::test]
async fn an_own_message_id_is_kept_and_a_second_of_its_kind_refused() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let builder =
            scene.builder().subscribe("order.created", move |id: MessageId, headers: CapHeaders| {
                let tell = tell.clone();
                let correlation = headers.get("cap-corr-id").map(str::to_owned);
                async move { tell.send((id.to_string(), correlation)).await }
            });
        let cap = scene.start(builder).await;
        let guid = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
        let id = cap.publish("order.created", &1).message_id(guid).await.unwrap();
        assert_eq!(id.as_str(), guid);
        assert_eq!(heard(&mut told).await, (guid.to_owned(), Some(guid.to_owned())));
        let error = cap.publish("order.created", &2).message_id(guid).await.unwrap_err();
        assert!(matches!(error, PublishError::DuplicateId { .. }), "{error}");
    })
    .await;
}

/// An event without an audience is no failure by default, but it can be found; or it is one, if the user says so.
#[tokio::test]
async fn a_message_that_no_queue_wants() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let cap = scene.start(scene.builder().subscribe("else", async || ())).await;
        let id = cap.publish("nobody.cares", &1).await.unwrap();
        let row = until("the row is marked", async || {
            let row = cap.messages().published().find(id.as_str()).await.unwrap().pop()?;
            row.reason.is_some().then_some(row)
        })
        .await;
        assert_eq!((row.status, row.reason), (Status::Succeeded, Some(Reason::Unrouted)));
        let strict = scene
            .builder()
            .configure(|options| {
                options.unrouted = Unrouted::Fail;
                options.publish_retry = RetryPolicy::never();
            })
            .on_failed(move |failure| {
                let tell = tell.clone();
                async move { tell.send(failure).await.unwrap() }
            });
        let strict = scene.start(strict).await;
        strict.publish("nobody.cares", &2).await.unwrap();
        let failure = heard(&mut told).await;
        assert_eq!((failure.side, failure.attempts), (Side::Outbox, 1));
        // Once there is an audience, it is published again by hand.
        let mut listener = scene.foreign().await.listen("nobody.cares").await;
        assert_eq!(strict.messages().published().rerun(&[row.id, failure.id]).await.unwrap().len(), 2);
        let bodies = BTreeSet::from([listener.next().await.data, listener.next().await.data]);
        assert_eq!(bodies, BTreeSet::from([b"1".to_vec(), b"2".to_vec()]));
    })
    .await;
}

/// The trace of the sender goes along to the handler, and from there with the answer.
#[tokio::test]
async fn the_trace_goes_along() {
    scene(async |scene| {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (tell, mut told) = mpsc::channel(8);
        let hear = move |headers: CapHeaders| {
            let tell = tell.clone();
            let seen = headers.get("traceparent").map(str::to_owned);
            async move { tell.send(seen).await }
        };
        let builder = scene.builder().subscribe("work", hear.clone()).subscribe("done", hear);
        let cap = scene.start(builder).await;
        cap.publish("work", &()).callback("done").header("traceparent", trace).await.unwrap();
        for _ in ["work", "done"] {
            let seen = heard(&mut told).await.unwrap();
            assert_eq!(seen.split('-').nth(1), Some("4bf92f3577b34da6a3ce929d0e0e4736"), "{seen}");
        }
    })
    .await;
}
