//! When the storage is written to: received messages and outcomes are gathered, where nobody waits for them.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cap_core::error::{StorageErrorKind, TransportError};
use cap_core::memory::MemoryConsumer;
use cap_core::prelude::*;
use cap_core::transport::{GroupSpec, Sent, Transport, TransportContext};
use cap_core::{Headers, Message};
use support::store::Shaky;
use support::{log, on};
use tokio::sync::Semaphore;

const MESSAGES: usize = 64;
const PREFETCH: u16 = 16;

/// The broker in memory, as one that is not part of the process.
struct Apart(MemoryTransport);

impl Transport for Apart {
    type Consumer = MemoryConsumer;

    fn name(&self) -> &'static str {
        "apart"
    }

    fn start(&self, context: &TransportContext) -> Result<(), TransportError> {
        self.0.start(context)
    }

    async fn send(&self, messages: &[Arc<Message>]) -> Vec<Result<Sent, TransportError>> {
        self.0.send(messages).await
    }

    async fn consume(&self, spec: &GroupSpec) -> Result<MemoryConsumer, TransportError> {
        self.0.consume(spec).await
    }

    async fn close(&self) {}
}

/// One that ends makes room for one message. Were that received at once, each would be stored and acknowledged by itself.
#[tokio::test(start_paused = true)]
async fn messages_are_stored_in_batches() {
    let (store, transport) = (Shaky::default(), MemoryTransport::new());
    let batches = Arc::new(Mutex::new(Vec::new()));
    let counted = Arc::clone(&batches);
    store.fail_when(StorageErrorKind::Unavailable, move |batch| {
        if !batch.incoming.is_empty() {
            counted.lock().unwrap().push(batch.incoming.len());
        }
        false
    });
    let (noted, mut seen) = log();
    let gate = Arc::new(Semaphore::new(0));
    let entered = Arc::clone(&gate);
    let cap = on(&MemoryStorage::new(), &transport)
        .storage(store.clone())
        .transport(Apart(transport.clone()))
        .configure(|options| options.prefetch = PREFETCH)
        .subscribe("work", move |_: RawBody| {
            let (entered, noted) = (Arc::clone(&entered), noted.clone());
            async move {
                entered.acquire().await.unwrap().forget();
                noted.note(());
            }
        })
        .start()
        .await
        .unwrap();
    for number in 0..MESSAGES {
        let id = number.to_string();
        let headers: Headers = [("cap-msg-id", &*id), ("cap-msg-name", "work")].into_iter().collect();
        transport.publish_raw("work", headers, Headers::new(), "1").await.unwrap();
    }
    for _ in 0..MESSAGES {
        gate.add_permits(1);
        seen.next().await;
    }
    cap.shutdown().await.unwrap();
    let batches = batches.lock().unwrap().clone();
    assert_eq!(batches.iter().sum::<usize>(), MESSAGES);
    // Those at the beginning, while there is room, are as large as the broker delivers them.
    let filled = 2 * usize::from(PREFETCH);
    let mut stored = 0;
    let later = batches.iter().filter(|batch| {
        stored += **batch;
        stored > filled
    });
    let small = later.filter(|batch| **batch < usize::from(PREFETCH) / 4).count();
    assert!(small <= 1, "only the last batch may be small, not {batches:?}");
}

/// The confirm of a message comes when its consumer stores it, and its handler may end right after that. Nobody waits for
/// either outcome, so one commit does for both.
#[tokio::test(start_paused = true)]
async fn outcomes_of_both_sides_are_written_together() {
    let (store, transport) = (Shaky::default(), MemoryTransport::new());
    let batches = Arc::new(Mutex::new(Vec::new()));
    let counted = Arc::clone(&batches);
    store.fail_when(StorageErrorKind::Unavailable, move |batch| {
        let completed = (batch.completed_outgoing.len(), batch.completed_incoming.len());
        if completed != (0, 0) {
            counted.lock().unwrap().push(completed);
        }
        false
    });
    let (noted, mut seen) = log();
    let cap = on(&MemoryStorage::new(), &transport)
        .storage(store.clone())
        .transport(Apart(transport.clone()))
        .subscribe("work", move |number: u32| {
            noted.note(number);
            async {}
        })
        .start()
        .await
        .unwrap();
    for number in 0..3 {
        cap.publish("work", &number).await.unwrap();
        assert_eq!(seen.next().await, number);
        // Longer than outcomes wait for others.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(*batches.lock().unwrap(), [(1, 1); 3]);
    cap.shutdown().await.unwrap();
}
