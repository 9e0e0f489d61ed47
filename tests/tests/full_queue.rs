//! A queue that is full and rejects (`reject-publish`): its messages wait, and nothing else does (issue 8, row 13).

use std::collections::BTreeSet;
use std::time::Duration;

use cap_core::Cap;
use cap_core::monitor::Query;
use cap_core::storage::{Side, Status};
use cap_tests::{heard, scene, until};
use tokio::sync::mpsc;

/// How many attempts were counted for messages that are to be sent.
async fn attempts(cap: &Cap) -> u32 {
    let rows = cap.monitor().list(&Query::new(Side::Outbox).limit(200)).await.unwrap();
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
        let mut query = Query::new(Side::Outbox);
        query.limit = 200;
        let rows = cap.monitor().list(&query).await.unwrap();
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
        for row in cap.monitor().list(&query).await.unwrap() {
            assert_eq!((row.attempts, row.status), (0, Status::Succeeded), "{:?}", row.last_error);
        }
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
