//! Messages to several topics that are stored together.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use cap_core::monitor::{Monitor as _, Query};
use cap_core::prelude::*;
use cap_core::storage::Side;
use support::{alone, log, on};

#[tokio::test(start_paused = true)]
async fn topics_and_options_differ_within_one_batch() {
    let (noted, mut seen) = log();
    let (first, second) = (noted.clone(), noted);
    let cap = alone()
        .subscribe("placed", move |number: u32, id: MessageId| {
            first.note((number, id));
            async {}
        })
        .subscribe("wanted", move |number: u32, id: MessageId| {
            second.note((number, id));
            async {}
        })
        .start()
        .await
        .unwrap();
    let mut batch = cap.batch();
    assert!(batch.is_empty());
    batch.add(cap.publish("placed", &1)).add(cap.publish("wanted", &2).message_id("own"));
    batch.extend((3..5).map(|number| cap.publish("placed", &number)));
    assert_eq!(batch.len(), 4);
    let ids = batch.await.unwrap();
    assert_eq!(ids[1].as_str(), "own");
    let mut all = seen.take(4).await;
    all.sort_by_key(|(number, _)| *number);
    let expected: Vec<(u32, MessageId)> = (1..5).zip(ids).collect();
    assert_eq!(all, expected);
    assert!(cap.batch().await.unwrap().is_empty());
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn batch_with_a_message_that_cannot_be_stored_stores_none() {
    let storage = MemoryStorage::new();
    let cap = on(&storage, &MemoryTransport::new()).start().await.unwrap();
    let other = alone().start().await.unwrap();
    for (bad, expected) in [
        (cap.publish("no topic", &2), "no topic"),
        (other.publish("wanted", &2), "not of the bus of this batch"),
    ] {
        let mut batch = cap.batch();
        batch.add(cap.publish("placed", &1)).add(bad).add(cap.publish("placed", &3));
        let error = batch.await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(storage.list(&Query::new(Side::Outbox)).await.unwrap().is_empty());
    other.shutdown().await.unwrap();
    cap.shutdown().await.unwrap();
}
