//! The end of messages: what succeeded goes soon, what failed for good stays longer, what is still to be done stays.

use std::time::Duration;

use cap_core::prelude::*;
use cap_tests::{heard, scene, until};
use tokio::sync::mpsc;

#[tokio::test]
async fn what_succeeded_expires_and_what_failed_or_waits_does_not() {
    scene(async |scene| {
        let (fail, mut failures) = mpsc::channel(8);
        let builder = scene
            .builder()
            .configure(|options| {
                options.succeeded_expire_after = Duration::from_millis(500);
                options.collector_interval = Duration::from_millis(100);
                options.collector_batch = 2;
                options.retry = RetryPolicy::delays([Duration::ZERO]);
            })
            .on_failed(move |failure| {
                let fail = fail.clone();
                async move { fail.send(failure).await.unwrap() }
            })
            .subscribe("work", async |number: u32, attempt: Attempt| match number {
                0 => Err("never"),
                1 if attempt.0 == 1 => Err("not at once"),
                _ => Ok(()),
            });
        let cap = scene.start(builder).await;
        let ids = cap.publish_all("work", 0..10).await.unwrap();
        let delayed = cap.publish("work", &11).delay(Duration::from_secs(3600)).await.unwrap();
        let failure = heard(&mut failures).await;
        let (published, received) = (cap.messages().published(), cap.messages());
        for id in &ids {
            until("it has left the outbox", async || {
                published.find(id.as_str()).await.unwrap().is_empty().then_some(())
            })
            .await;
        }
        for id in &ids[1..] {
            until("it has left the inbox", async || {
                received.find(id.as_str()).await.unwrap().is_empty().then_some(())
            })
            .await;
        }
        assert!(received.get(failure.id).await.unwrap().is_some());
        assert_eq!(published.find(delayed.as_str()).await.unwrap().len(), 1);
    })
    .await;
}
