//! A queue that is full and rejects (`reject-publish`): its messages wait, and nothing else does (issue 8, row 13).

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use cap_core::monitor::Row;
use cap_core::prelude::*;
use cap_core::storage::Status;
use cap_tests::{Policy, Scene, heard, scene, until};
use tokio::sync::mpsc;

/// How many attempts were counted for messages that are to be sent.
async fn attempts(cap: &Cap) -> u32 {
    let rows = cap.messages().published().limit(200).list().await.unwrap();
    rows.iter().map(|row| row.attempts).sum()
}

#[tokio::test]
async fn messages_to_a_full_queue_wait_and_others_flow() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(64);
        let builder = scene.builder().subscribe("flowing", move |number: u32| {
            let tell = tell.clone();
            async move { tell.send(number).await }
        });
        let cap = scene.start(builder).await;
        let foreign = scene.foreign().await;
        let queue = foreign.small_queue("full", 5).await;
        cap.publish_all("full", 0..100u32).await.unwrap();
        // Every message is in the storage again, without an owner.
        let health = until("the queue is full", async || {
            let health = cap.health().await;
            assert_eq!(attempts(&cap).await, 0, "an attempt was counted");
            let waiting = health.full.first().map_or(0, |full| full.waiting);
            (waiting >= 90 && health.relaying == 0).then_some(health)
        })
        .await;
        assert!(!health.is_healthy() && health.is_degraded(), "{health:?}");
        let full = &health.full[0];
        assert_eq!((&*full.topic, &*full.destination), ("full", scene.name()));
        assert!(full.own_groups.is_empty() && full.error.contains("rejected"), "{full:?}");

        for number in 0..20 {
            cap.publish("flowing", &number).await.unwrap();
            assert_eq!(heard(&mut told).await, number);
        }
        let published = cap.messages().published().limit(200);
        let rows = published.list().await.unwrap();
        let waiting: Vec<_> = rows.iter().filter(|row| row.status != Status::Succeeded).collect();
        assert!(waiting.len() >= 90, "{}", waiting.len());
        for row in waiting {
            assert_eq!((row.attempts, row.status), (0, Status::Scheduled), "{:?}", row.last_error);
        }

        let mut consumer = foreign.consume(&queue).await;
        let mut all = BTreeSet::new();
        while all.len() < 100 {
            all.insert(consumer.next().await.data.clone());
        }
        until("the bus is well again", async || cap.health().await.is_healthy().then_some(())).await;
        // Well again is the bus when the topic has room; the last messages may still be on their way.
        until("every message being sent", async || {
            let rows = published.list().await.unwrap();
            assert!(rows.iter().all(|row| row.attempts == 0), "an attempt was counted");
            rows.iter().all(|row| row.status == Status::Succeeded).then_some(())
        })
        .await;
    })
    .await;
}

/// The full queue is one of this bus's own, which health may name.
#[tokio::test]
async fn own_group_of_a_full_topic_is_named() {
    scene(async |scene| {
        let cap = scene.start(scene.builder().subscribe("full", async |_: u32| ())).await;
        let foreign = scene.foreign().await;
        let queue = foreign.small_queue("full", 1).await;
        cap.publish_all("full", 0..3u32).await.unwrap();
        let full = until("the queue is full", async || {
            assert_eq!(attempts(&cap).await, 0, "an attempt was counted");
            cap.health().await.full.pop()
        })
        .await;
        assert_eq!(full.own_groups, [scene.queue("main")]);
        let mut consumer = foreign.consume(&queue).await;
        let ids = async {
            let mut ids = BTreeSet::new();
            while ids.len() < 3 {
                ids.insert(consumer.next().await.data.clone());
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ids).await.unwrap();
    })
    .await;
}

/// A quorum queue takes some more than its limit, since it is notified of that while messages are on their way.
#[tokio::test]
async fn messages_to_a_full_quorum_queue_wait() {
    scene(async |scene| {
        let cap = scene.start(scene.builder()).await;
        let foreign = scene.foreign().await;
        let queue = scene.queue("full");
        scene.note_queues(["full"]);
        foreign.small_quorum_queue(&queue, "full", 5).await;
        let mut published = 0u32;
        let full = until("the queue is full", async || {
            if published < 2000 {
                cap.publish_all("full", published..published + 20).await.unwrap();
                published += 20;
            }
            cap.health().await.full.pop()
        })
        .await;
        assert_eq!((&*full.topic, &*full.destination), ("full", scene.name()));
        let health = until("the rows are in the storage again", async || {
            let health = cap.health().await;
            (health.relaying == 0).then_some(health)
        })
        .await;
        assert!(health.is_degraded(), "{health:?}");

        let mut consumer = foreign.consume(&queue).await;
        let mut all = BTreeSet::new();
        while all.len() < published as usize {
            all.insert(consumer.next().await.data.clone());
        }
        until("the bus is well again", async || cap.health().await.is_healthy().then_some(())).await;
        let rows = cap.messages().published().limit(published as usize).list().await.unwrap();
        assert_eq!(rows.len(), published as usize);
        for row in rows {
            assert_eq!((row.attempts, row.status), (0, Status::Succeeded), "{:?}", row.last_error);
        }
    })
    .await;
}

const DELAY: Duration = Duration::from_secs(2);

/// Has the delay queues of this scene take one message each, for a test that can do so.
async fn one_in_each_delay_queue(scene: &Scene, kind: &str) -> Option<Policy> {
    Policy::limit(&format!("cap.delay.{kind}.{}", scene.name()), 1, &scene.queue("main")).await
}

/// What a full delay queue rejects is kept by the storage until it is due, and no topic counts as full.
#[tokio::test]
async fn a_delay_at_a_full_delay_queue_is_kept_by_the_storage() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(10_000);
        let builder = scene.builder().subscribe("later", move |number: u32| {
            let tell = tell.clone();
            async move { tell.send(number).await }
        });
        let cap = scene.start(builder).await;
        let Some(_policy) = one_in_each_delay_queue(scene, "exchange").await else { return };
        scene.publishes_at_broker(DELAY);
        let mut published = 0u32;
        let health = until("the storage keeps some", async || {
            let numbers = published..published + 20;
            cap.publish_all("later", numbers).delay_at_broker(DELAY).await.unwrap();
            published += 20;
            let scheduled = cap.messages().published().status(Status::Scheduled);
            let rows = scheduled.limit(2000).list().await.unwrap();
            let keeps = rows.iter().any(|row| row.owner.is_none());
            keeps.then_some(cap.health().await)
        })
        .await;
        assert!(health.full.is_empty() && health.is_healthy(), "{health:?}");
        let mut all = BTreeSet::new();
        while all.len() < published as usize {
            all.insert(heard(&mut told).await);
        }
        let rows = cap.messages().published().limit(published as usize).list().await.unwrap();
        assert_eq!(rows.len(), published as usize);
        assert!(rows.iter().all(|row| row.attempts == 0));
    })
    .await;
}

/// A retry that its delay queue has no room for comes from the storage, in time, as the same attempt.
#[tokio::test]
async fn a_retry_at_a_full_delay_queue_is_kept_by_the_storage() {
    const LEASE: Duration = Duration::from_mins(5);
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(10_000);
        scene.waits_at_broker("main", DELAY);
        let subscribe = Subscribe::to("call").retry(RetryPolicy::broker([DELAY])).concurrency(32);
        // What waits at the broker becomes due one lease late, which this test would not see.
        let builder = scene.builder().configure(|options| options.lease = LEASE);
        let builder = builder.subscribe(subscribe, move |number: u32, attempt: Attempt| {
            let tell = tell.clone();
            async move {
                tell.send((number, attempt.0)).await.unwrap();
                if attempt.0 == 1 { Err("no") } else { Ok(()) }
            }
        });
        let cap = scene.start(builder).await;
        let Some(_policy) = one_in_each_delay_queue(scene, "queue").await else { return };
        let mut published = 0u32;
        until("the storage keeps one", async || {
            cap.publish_all("call", published..published + 20).await.unwrap();
            published += 20;
            let rows = cap.messages().status(Status::Retrying).limit(2000).list().await.unwrap();
            let soon = SystemTime::now() + LEASE / 2;
            let is_kept = |row: &Row| row.owner.is_none() && row.due.is_some_and(|due| due < soon);
            rows.iter().any(is_kept).then_some(())
        })
        .await;
        let mut runs = BTreeSet::new();
        while runs.len() < 2 * published as usize {
            let run = heard(&mut told).await;
            assert!(runs.insert(run), "{run:?} ran twice");
        }
        let rows = until("all of them are done", async || {
            let rows = cap.messages().limit(2000).list().await.unwrap();
            rows.iter().all(|row| row.status == Status::Succeeded).then_some(rows)
        })
        .await;
        assert_eq!(rows.len(), published as usize);
        assert!(rows.iter().all(|row| row.attempts == 1));
        assert!(cap.health().await.is_healthy());
    })
    .await;
}
