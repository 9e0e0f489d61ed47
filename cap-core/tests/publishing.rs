//! What can be said about a message, and what is refused.

mod support;

use std::time::Duration;

use cap_core::prelude::*;
use cap_core::storage::{Reason, Side, Status};
use support::{alone, log};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_publisher_that_outlives_its_handler_says_so() {
    let (noted, mut seen) = log();
    let (told, mut late) = log();
    let cap = alone()
        .subscribe(
            Subscribe::to("work").timeout(Duration::from_secs(10)).retry(RetryPolicy::never()),
            move |hangs: bool, publisher: Publisher| {
                let told = told.clone();
                async move {
                    publisher.publish("done", "in time").await?;
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_secs(20)).await;
                        told.note(publisher.publish("done", "late").await);
                    });
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, PublishError>(())
                }
            },
        )
        .subscribe("done", move |what: String| {
            noted.note(what);
            async {}
        })
        .start()
        .await
        .unwrap();
    for hangs in [false, true] {
        cap.publish("work", &hangs).await.unwrap();
        let error = late.next().await.unwrap_err();
        assert!(matches!(&error, PublishError::HandlerEnded { topic } if topic == "done"), "{error}");
        assert!(error.to_string().contains("cap: Cap"), "{error}");
    }
    cap.shutdown().await.unwrap();
    assert_eq!(seen.next().await, "in time", "what the one that hung had published is dropped");
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_comes_when_it_is_due_and_not_before() {
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe("later", move |n: u32, headers: CapHeaders| {
            noted.note((n, Instant::now(), headers.get("cap-delaytime").map(str::to_owned)));
            async {}
        })
        .start()
        .await
        .unwrap();
    let start = Instant::now();
    for (n, seconds) in [(1, 7200), (2, 90), (3, 7)] {
        cap.publish("later", &n).delay(Duration::from_secs(seconds)).await.unwrap();
    }
    for (n, seconds, header) in [(3, 7, "00:00:07"), (2, 90, "00:01:30"), (1, 7200, "02:00:00")] {
        let (got, at, delay) = seen.next().await;
        assert_eq!((got, delay.as_deref()), (n, Some(header)));
        let late = (at - start).saturating_sub(Duration::from_secs(seconds));
        assert!(at - start >= Duration::from_secs(seconds), "{n} came early");
        assert!(late < Duration::from_millis(100), "{n} came {late:?} late");
    }
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_can_be_called_off_once() {
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe("later", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    let id = cap.publish("later", &1).delay(Duration::from_secs(60)).await.unwrap();
    assert!(cap.cancel(&id).await.unwrap());
    assert!(!cap.cancel(&id).await.unwrap());
    assert!(!cap.cancel(&MessageId::new("unknown")).await.unwrap());
    let rows = cap.messages().published().find(id.as_str()).await.unwrap();
    assert_eq!((rows[0].status, rows[0].reason), (Status::Failed, Some(Reason::Cancelled)));
    cap.publish("later", &2).delay(Duration::from_secs(120)).await.unwrap();
    assert_eq!(seen.next().await, 2);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test]
async fn several_messages_are_stored_together_and_come_in_order() {
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe("sensor.read", move |n: u32, headers: CapHeaders| {
            noted.note((n, headers.get("site").map(str::to_owned)));
            async {}
        })
        .start()
        .await
        .unwrap();
    let ids = cap.publish_all("sensor.read", 0..1000u32).header("site", "north").await.unwrap();
    assert_eq!(ids.len(), 1000);
    for n in 0..1000 {
        assert_eq!(seen.next().await, (n, Some("north".to_owned())));
    }
    assert!(cap.publish_all("sensor.read", Vec::<u32>::new()).await.unwrap().is_empty());
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn null_and_own_ids_travel_as_they_are() {
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe("null", move |value: Option<u32>, RawBody(body): RawBody, id: MessageId| {
            noted.note((value, body.len(), id));
            async {}
        })
        .start()
        .await
        .unwrap();
    let guid = "6ff1a3a2-96f1-4a2b-8d53-8b0d8a2d9f10";
    let id = cap.publish("null", &()).message_id(guid).await.unwrap();
    assert_eq!(id.as_str(), guid);
    assert_eq!(seen.next().await, (None, 0, MessageId::new(guid)));
    let error = cap.publish("null", &()).message_id(guid).await.unwrap_err();
    assert!(error.to_string().contains(guid), "{error}");
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test]
async fn mistakes_are_told_when_the_message_is_published() {
    struct Unserialisable;
    impl Serialize for Unserialisable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    let cap = alone().configure(|options| options.max_message_size = 1000).start().await.unwrap();
    for (publish, expected) in [
        (cap.publish("a b", &1), "' '"),
        (cap.publish(&*"x".repeat(201), &1), "201 characters"),
        (cap.publish("t", &1).callback("a.*"), "wildcard"),
        (cap.publish("t", &Unserialisable), "not today"),
        (cap.publish("t", &"x".repeat(2000)), "allows 1000"),
        (cap.publish("t", &1).header("cap-msg-name", "x"), "cap-msg-name"),
        (cap.publish("t", &1).header("cap-exception", "x"), "cap-exception"),
        (cap.publish("t", &1).message_id(""), "cap-msg-id"),
    ] {
        let error = publish.await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let rows = cap.messages().published().list().await.unwrap();
    assert!(rows.is_empty(), "nothing was stored");
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_bus_that_is_shut_down_says_so() {
    let cap = alone().start().await.unwrap();
    let other = cap.clone();
    cap.shutdown().await.unwrap();
    cap.shutdown().await.unwrap();
    let error = other.publish("order.created", &1).await.unwrap_err();
    assert!(matches!(error, PublishError::ShutDown { .. }), "{error}");
    assert!(error.to_string().contains("order.created"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_publishes_leaves_with_its_success_only() {
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe("work", |publisher: Publisher, Attempt(attempt): Attempt| async move {
            publisher.publish("event", &attempt).await?;
            if attempt < 3 { Err("not yet".into()) } else { Ok::<_, cap_core::BoxError>(()) }
        })
        .subscribe(Subscribe::to("event").group("other"), move |n: u32, headers: CapHeaders| {
            noted.note((n, headers.get("traceparent").map(str::to_owned)));
            async {}
        })
        .start()
        .await
        .unwrap();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    cap.publish("work", &()).header("traceparent", trace).await.unwrap();
    assert_eq!(seen.next().await, (3, Some(trace.to_owned())));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    seen.assert_empty();
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_message_that_no_queue_wants_succeeds_and_can_be_found() {
    let cap = alone().start().await.unwrap();
    let id = cap.publish("nobody.listens", &1).await.unwrap();
    cap.shutdown().await.unwrap();
    let rows = cap.messages().published().find(id.as_str()).await.unwrap();
    assert_eq!((rows[0].status, rows[0].reason), (Status::Succeeded, Some(Reason::Unrouted)));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_no_queue_wants_can_be_a_failure() {
    let (noted, mut seen) = log();
    let cap = alone()
        .configure(|options| {
            options.unrouted = cap_core::Unrouted::Fail;
            options.publish_retry = RetryPolicy::fixed(Duration::from_secs(10), 3);
        })
        .on_failed(move |failure| {
            noted.note((failure.side, failure.attempts, failure.error));
            async {}
        })
        .start()
        .await
        .unwrap();
    let start = Instant::now();
    let id = cap.publish("nobody.listens", &1).await.unwrap();
    let (side, attempts, error) = seen.next().await;
    assert_eq!((side, attempts), (Side::Outbox, 3));
    assert!(error.contains("unrouted"), "{error}");
    assert_eq!(start.elapsed().as_secs(), 20);
    let row = &cap.messages().published().find(id.as_str()).await.unwrap()[0];
    assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::Exhausted)));
    assert_eq!(cap.messages().published().attempts(row.id).await.unwrap().len(), 3);
    cap.shutdown().await.unwrap();
}
