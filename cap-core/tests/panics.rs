//! Panics in the application's code outside of its handlers: each costs the message that it met, and no other.
#![allow(clippy::panic, reason = "that is what they are about")]
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cap_core::prelude::*;
use cap_core::storage::Reason;
use cap_core::{CapBuilder, Headers, Next, layer_fn};
use support::{Seen, alone, log, on};

/// An error that cannot be shown.
#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("no words for it")
    }
}

impl std::error::Error for Unspeakable {}

fn told(builder: CapBuilder) -> (CapBuilder, Seen<(Reason, i64, String)>) {
    let (noted, seen) = log();
    let builder = builder.on_failed(move |failure| {
        noted.note((failure.reason, failure.id, failure.error));
        async {}
    });
    (builder.configure(|options| options.retry = RetryPolicy::never()), seen)
}

/// One message that panics somewhere, and then one that does not.
async fn one_fails_and_the_next_does_not(builder: CapBuilder, words: &str) {
    let (builder, mut failures) = told(builder);
    let (noted, mut seen) = log();
    let cap = builder
        .subscribe("good", move || {
            noted.note(());
            async {}
        })
        .start()
        .await
        .unwrap();
    for _ in 0..2 {
        cap.publish("bad", &()).await.unwrap();
        cap.publish("good", &()).await.unwrap();
        let (reason, _, error) = failures.next().await;
        assert_eq!(reason, Reason::Exhausted, "{error}");
        assert!(error.contains(words), "{error}");
        seen.next().await;
    }
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_panics_before_it_has_a_future_fails_its_message() {
    let layer = layer_fn(|delivery: Delivery, next: Next| {
        assert!(delivery.topic() != "bad", "the layer is broken");
        next.run(delivery)
    });
    let builder = alone().layer(layer).subscribe("bad", async || ());
    one_fails_and_the_next_does_not(builder, "panicked: the layer is broken").await;
}

#[tokio::test(start_paused = true)]
async fn a_classifier_that_panics_fails_its_message() {
    fn classify(_: HandlerError) -> HandlerError {
        panic!("no such class")
    }
    let builder = alone().classify_errors(classify).subscribe("bad", async || Err::<(), _>("odd"));
    one_fails_and_the_next_does_not(builder, "the classifier of errors panicked: no such class").await;
}

#[tokio::test(start_paused = true)]
async fn an_error_that_cannot_be_shown_fails_its_message() {
    let builder = alone().subscribe("bad", async || Err::<(), _>(Unspeakable));
    one_fails_and_the_next_does_not(builder, "error panicked: no words for it").await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_has_its_message_parked_until_it_is_mended() {
    let (transport, storage) = (MemoryTransport::new(), MemoryStorage::new());
    let mended = Arc::new(AtomicBool::new(false));
    let hook = Arc::clone(&mended);
    let (noted, mut seen) = log();
    let (builder, mut failures) = told(on(&storage, &transport));
    let cap = builder
        .map_incoming(move |delivery| {
            assert!(delivery.routing_key != "bad" || hook.load(Ordering::Relaxed), "odd delivery");
            Some([("cap-msg-id", "1"), ("cap-msg-name", "bad")].into_iter().collect())
                .filter(|_| !delivery.headers.contains("cap-msg-id"))
        })
        .subscribe("#", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    transport.publish_raw("bad", Headers::new(), Headers::new(), "1").await.unwrap();
    let (reason, row, error) = failures.next().await;
    assert_eq!((reason, &*error), (Reason::MissingHeaders, "map_incoming panicked: odd delivery"));
    cap.publish("good", &2).await.unwrap();
    assert_eq!(seen.next().await, 2);
    // Run again, it meets the same panic in the group's own task.
    assert_eq!(cap.messages().parked().rerun(&[row]).await.unwrap(), [row]);
    assert_eq!(failures.next().await.1, row);
    cap.publish("good", &3).await.unwrap();
    assert_eq!(seen.next().await, 3);
    mended.store(true, Ordering::Relaxed);
    assert_eq!(cap.messages().parked().rerun(&[row]).await.unwrap(), [row]);
    assert_eq!(seen.next().await, 1);
    cap.shutdown().await.unwrap();
}

/// An error that blows up in the hands of whoever throws it away.
#[derive(Debug)]
struct Explosive;

impl fmt::Display for Explosive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("careful")
    }
}

impl std::error::Error for Explosive {}

impl Drop for Explosive {
    fn drop(&mut self) {
        panic!("bang")
    }
}

#[tokio::test(start_paused = true)]
async fn group_whose_task_died_leaves_messages_to_other_nodes() {
    let (transport, storage) = (MemoryTransport::new(), MemoryStorage::new());
    let (noted, mut seen) = log();
    let broken = on(&storage, &transport)
        .subscribe("work", async |n: u32| if n == 0 { Err(Explosive) } else { Ok(()) })
        .start()
        .await
        .unwrap();
    broken.publish("work", &0).await.unwrap();
    while broken.health().await.groups[0].consumer.up {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    broken.publish_all("work", 1..=3u32).await.unwrap();
    let heir = on(&storage, &transport)
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    let mut all = seen.take(3).await;
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3]);
    let consumer = broken.health().await.groups.remove(0).consumer;
    assert!(!consumer.up && consumer.error.unwrap().contains("has died"));
    heir.shutdown().await.unwrap();
    broken.shutdown().await.unwrap();
}
