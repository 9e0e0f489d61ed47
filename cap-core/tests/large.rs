//! Large messages: what is bounded in bytes, what a failing insert holds up, and what becomes of a message that the storage
//! does not take. Issue 9, rows 2 and 13.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cap_core::error::StorageErrorKind::Unavailable;
use cap_core::monitor::{Monitor as _, Query, Row};
use cap_core::prelude::*;
use cap_core::storage::{
    Entry, Identity, NewIncoming, Owner, Reason, Side, Status, Storage as _, WriteBatch,
};
use cap_core::{Headers, Message, PublishError};
use support::store::{ALL, Call, Shaky};
use support::{Log, Seen, log};

const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1024 * 1024;

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|place| u8::try_from(place % 251).unwrap()).collect()
}

async fn send(transport: &MemoryTransport, topic: &str, id: &str, body: impl Into<bytes::Bytes>) {
    let headers: Headers = [("cap-msg-id", id), ("cap-msg-name", topic)].into_iter().collect();
    transport.publish_raw(topic, headers, Headers::new(), body).await.unwrap();
}

/// A bus whose handlers note the group and the size of each body.
async fn start(
    storage: &Shaky,
    transport: &MemoryTransport,
    groups: &'static [&'static str],
) -> (Cap, Seen<(&'static str, usize)>) {
    let (noted, seen) = log();
    let mut builder = support::on(&storage.inner, transport).storage(storage.clone());
    for &group in groups {
        let noted: Log<(&'static str, usize)> = noted.clone();
        builder = builder.subscribe(Subscribe::to("work").group(group), move |RawBody(body): RawBody| {
            noted.note((group, body.len()));
            async {}
        });
    }
    (builder.start().await.unwrap(), seen)
}

/// Counts the writes of a batch for which this is so, and has them fail.
fn fail_and_count(storage: &Shaky, fails: impl Fn(&WriteBatch) -> bool + Send + 'static) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    storage.fail_when(Unavailable, move |batch| {
        let fails = fails(batch);
        counted.fetch_add(usize::from(fails), Ordering::Relaxed);
        fails
    });
    count
}

async fn only_parked(cap: &Cap) -> Row {
    let wait = async {
        loop {
            if let Some(row) = cap.messages().parked().list().await.unwrap().pop() {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(600 * SECOND, wait).await.unwrap()
}

mod insert_that_fails {
    use super::*;

    /// One group's inserts fail: the other group, and those who publish, go on.
    #[tokio::test(start_paused = true)]
    async fn delays_no_other_group_and_no_publisher() {
        let (storage, transport) = (Shaky::default(), MemoryTransport::new());
        let (cap, mut seen) = start(&storage, &transport, &["bad", "good"]).await;
        storage.fail_when(Unavailable, |batch| batch.incoming.iter().any(|row| row.group.starts_with("bad")));
        for number in 0..20 {
            send(&transport, "work", &format!("m{number}"), "{}").await;
            assert_eq!(seen.next().await, ("good", 2));
            cap.publish("unheard", &number).await.unwrap();
        }
        storage.mend(&ALL);
        assert_eq!(seen.take(20).await, [("bad", 2); 20]);
        cap.shutdown().await.unwrap();
    }

    /// One of many messages that are published at the same time is not taken: it is found, and the others are stored.
    #[tokio::test(start_paused = true)]
    async fn is_halved_while_the_storage_takes_others() {
        let storage = Shaky::default();
        let cap = support::on(&storage.inner, &MemoryTransport::new()).storage(storage.clone());
        let cap = cap.start().await.unwrap();
        let is_bad = |batch: &WriteBatch| batch.outgoing.iter().any(|row| row.message.name() == Some("bad"));
        let whole = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&whole);
        storage.fail_when(Unavailable, move |batch| {
            counted.fetch_add(usize::from(batch.outgoing.len() == 20), Ordering::Relaxed);
            is_bad(batch)
        });
        let publishes = (0..20).map(|number| {
            let topic = if number == 13 { "bad" } else { "good" };
            cap.publish(topic, &number).into_future()
        });
        let answers = futures_util::future::join_all(publishes).await;
        for (number, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(_) => assert_ne!(number, 13),
                Err(error) => {
                    assert_eq!(number, 13, "{error}");
                    assert!(matches!(error, PublishError::TimedOut { .. }), "a small message waits: {error}");
                }
            }
        }
        assert_eq!(whole.load(Ordering::Relaxed), 2, "the whole batch is tried twice");
        cap.shutdown().await.unwrap();
    }

    /// An outage blames nobody.
    #[tokio::test(start_paused = true)]
    async fn in_an_outage_is_not_halved() {
        let (storage, transport) = (Shaky::default(), MemoryTransport::new());
        let (cap, mut seen) = start(&storage, &transport, &["good"]).await;
        storage.fail(&[Call::Write, Call::Renew], Unavailable);
        send(&transport, "work", "large", body(9 * MIB)).await;
        tokio::time::sleep(600 * SECOND).await;
        storage.mend(&ALL);
        assert_eq!(seen.next().await, ("good", 9 * MIB));
        assert_eq!(cap.messages().parked().count().await.unwrap(), 0);
        cap.shutdown().await.unwrap();
    }
}

mod message_that_is_not_taken {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_parked_whole_if_possible() {
        let (storage, transport) = (Shaky::default(), MemoryTransport::new());
        let (cap, mut seen) = start(&storage, &transport, &["good"]).await;
        let tries = fail_and_count(&storage, |batch| {
            batch
                .incoming
                .iter()
                .any(|row| row.message.body.len() > MIB && matches!(row.entry, Entry::Scheduled { .. }))
        });
        send(&transport, "work", "large", body(9 * MIB)).await;
        send(&transport, "work", "small", "{}").await;
        assert_eq!(seen.next().await, ("good", 2));
        let row = only_parked(&cap).await;
        assert_eq!((row.reason, row.message.id()), (Some(Reason::Corrupt), Some("large")));
        assert!(row.message.body == body(9 * MIB), "the whole body is there");
        assert_eq!(tries.load(Ordering::Relaxed), 5);
        cap.shutdown().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn is_parked_in_part_otherwise() {
        let (storage, transport) = (Shaky::default(), MemoryTransport::new());
        let (cap, mut seen) = start(&storage, &transport, &["good"]).await;
        let tries =
            fail_and_count(&storage, |batch| batch.incoming.iter().any(|row| row.message.body.len() > MIB));
        send(&transport, "work", "large", body(9 * MIB)).await;
        send(&transport, "work", "small", "{}").await;
        assert_eq!(seen.next().await, ("good", 2));
        let row = only_parked(&cap).await;
        assert_eq!((row.reason, row.message.id()), (Some(Reason::Corrupt), Some("large")));
        assert!(row.message.body == body(64 * 1024), "{} bytes", row.message.body.len());
        let error = row.last_error.unwrap();
        assert!(error.contains("of the 9437184 bytes of its body only the first 65536 are kept"), "{error}");
        assert!(error.contains("it does not take this batch"), "{error}");
        assert_eq!(tries.load(Ordering::Relaxed), 10, "as it is, and parked");
        // It is known: a second delivery is not stored beside it.
        send(&transport, "work", "large", body(9 * MIB)).await;
        send(&transport, "work", "end", "{}").await;
        storage.mend(&ALL);
        assert_eq!(seen.next().await, ("good", 2));
        assert_eq!(cap.messages().parked().count().await.unwrap(), 1);
        cap.shutdown().await.unwrap();
    }

    /// On a full disk small writes may still succeed, which says nothing against a large message: it waits, whole.
    #[tokio::test(start_paused = true)]
    async fn waits_if_the_storage_is_full() {
        let (storage, transport) = (Shaky::default(), MemoryTransport::new());
        let (cap, mut seen) = start(&storage, &transport, &["good"]).await;
        storage.fail_when(Unavailable, |batch| batch.incoming.iter().any(|row| row.message.body.len() > MIB));
        storage.fill();
        send(&transport, "work", "large", body(9 * MIB)).await;
        tokio::time::sleep(3600 * SECOND).await;
        assert_eq!(cap.messages().parked().count().await.unwrap(), 0);
        storage.mend(&ALL);
        assert_eq!(seen.next().await, ("good", 9 * MIB));
        cap.shutdown().await.unwrap();
    }

    /// Of a small one no limit of the server's can be the reason: it waits.
    #[tokio::test(start_paused = true)]
    async fn waits_if_it_is_small() {
        let (storage, transport) = (Shaky::default(), MemoryTransport::new());
        let (cap, mut seen) = start(&storage, &transport, &["good"]).await;
        storage.fail_when(Unavailable, |batch| !batch.incoming.is_empty());
        send(&transport, "work", "small", "{}").await;
        tokio::time::sleep(3600 * SECOND).await;
        storage.mend(&ALL);
        assert_eq!(seen.next().await, ("good", 2));
        assert_eq!(cap.messages().parked().count().await.unwrap(), 0);
        cap.shutdown().await.unwrap();
    }
}

/// From the sender's buffer to the handler's argument, through a transport and a storage that hold bodies in memory.
#[tokio::test(start_paused = true)]
async fn a_body_is_not_copied_on_its_way() {
    let (storage, transport) = (Shaky::default(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let cap = support::on(&storage.inner, &transport)
        .storage(storage.clone())
        .subscribe("work", move |RawBody(body): RawBody| {
            noted.note(body.as_ptr() as usize);
            async {}
        })
        .start()
        .await
        .unwrap();
    for size in [100, 2 * MIB, 9 * MIB] {
        let body = bytes::Bytes::from(body(size));
        send(&transport, "work", &size.to_string(), body.clone()).await;
        assert_eq!(seen.next().await, body.as_ptr() as usize, "{size} bytes");
    }
    cap.shutdown().await.unwrap();
    assert_eq!(storage.list(&Query::new(Side::Inbox)).await.unwrap()[0].status, Status::Succeeded);
}

/// What is due is larger than what a group may hold: it comes in parts, as handlers end.
#[tokio::test(start_paused = true)]
async fn claims_no_more_bytes_than_are_free() {
    const SHARE: usize = 64 * 1024;
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let rows = (1..=5).map(|id| {
        let id_text = id.to_string();
        let headers: Headers = [("cap-msg-id", &*id_text), ("cap-msg-name", "work")].into_iter().collect();
        NewIncoming {
            id,
            group: "test.v1".into(),
            message: Arc::new(Message::new(headers, body(SHARE * 2 / 5))),
            entry: Entry::Scheduled { held: false },
            identity: Identity::default(),
        }
    });
    let batch = WriteBatch { incoming: rows.collect(), ..WriteBatch::default() };
    let owner = Owner { node: "gone".into(), version: "v1".into(), lease: SECOND };
    storage.write(&owner, &batch).await.unwrap();
    let (noted, mut seen) = log();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let entered = Arc::clone(&gate);
    let cap = support::on(&storage, &transport)
        .configure(|options| (options.receive_bytes, options.group_concurrency) = (SHARE, 10))
        .subscribe("work", move |RawBody(body): RawBody| {
            noted.note(body.len());
            let entered = Arc::clone(&entered);
            async move { entered.acquire().await.unwrap().forget() }
        })
        .start()
        .await
        .unwrap();
    let leased = async || {
        let all = storage.list(&Query::new(Side::Inbox)).await.unwrap();
        all.iter().filter(|row| row.owner.is_some()).count()
    };
    seen.take(2).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(leased().await, 2, "a third one would not fit");
    gate.add_permits(5);
    seen.take(3).await;
    cap.shutdown().await.unwrap();
}
