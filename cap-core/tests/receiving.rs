//! What the broker delivers and the store does not take, or the handlers not yet: nothing is lost, and nothing is held up.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use cap_core::error::{StorageError, StorageErrorKind};
use cap_core::monitor::{Among, Change, Count, FailedAttempt, Monitor, Query, Row};
use cap_core::prelude::*;
use cap_core::storage::{
    ClaimRequest, Claimed, Claims, Entry, Expiry, Identity, Lease, NewIncoming, NodeRequest, Owner, Reason,
    Side, Storage, Wake, WriteBatch, WriteReport,
};
use cap_core::{Headers, Message};
use support::{log, on};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);

/// A store that does not take everything.
#[derive(Clone, Default)]
struct Choosy {
    inner: MemoryStorage,
    /// The first row id of a message with the body `"taken"`.
    taken: Arc<AtomicI64>,
    /// Whether it has come to take everything.
    tolerant: Arc<AtomicBool>,
    /// Whether it takes nothing for the time being, as one without permissions would.
    out_of_order: Arc<AtomicBool>,
    refusals: Arc<AtomicU32>,
}

impl Choosy {
    fn takes(&self, row: &NewIncoming) -> bool {
        let odd = |text: &str| text.contains('\u{1}');
        match &row.message.body[..] {
            _ if row.message.headers.iter().any(|(name, value)| odd(name) || value.is_some_and(odd)) => false,
            b"\"never\"" => self.tolerant.load(Ordering::Relaxed),
            b"\"taken\"" => {
                let first = self.taken.compare_exchange(0, row.id, Ordering::Relaxed, Ordering::Relaxed);
                first.is_err_and(|first| first != row.id)
            }
            _ => true,
        }
    }
}

impl Storage for Choosy {
    fn name(&self) -> &'static str {
        "choosy"
    }
    fn check(&self) -> Result<(), StorageError> {
        self.inner.check()
    }
    async fn initialize(&self) -> Result<(), StorageError> {
        self.inner.initialize().await
    }
    async fn join(&self, request: &NodeRequest) -> Result<u16, StorageError> {
        self.inner.join(request).await
    }
    async fn keep_alive(&self, request: &NodeRequest, worker: u16) -> Result<bool, StorageError> {
        self.inner.keep_alive(request, worker).await
    }
    async fn leave(&self, node: &str, worker: u16) -> Result<(), StorageError> {
        self.inner.leave(node, worker).await
    }
    async fn write(&self, owner: &Owner, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
        let error = |kind| Err(StorageError::new(kind, "choosy", "not this"));
        if !batch.incoming.is_empty() && self.out_of_order.load(Ordering::Relaxed) {
            return error(StorageErrorKind::Unusable);
        }
        if !batch.incoming.iter().all(|row| self.takes(row)) {
            self.refusals.fetch_add(1, Ordering::Relaxed);
            return error(StorageErrorKind::Refused);
        }
        self.inner.write(owner, batch).await
    }
    async fn claim(&self, owner: &Owner, request: &ClaimRequest) -> Result<Claims, StorageError> {
        self.inner.claim(owner, request).await
    }
    async fn claim_waiting(
        &self,
        owner: &Owner,
        leases: &[Lease],
    ) -> Result<Vec<Option<Claimed>>, StorageError> {
        self.inner.claim_waiting(owner, leases).await
    }
    async fn renew(&self, owner: &Owner, side: Side, leases: &[Lease]) -> Result<Vec<bool>, StorageError> {
        self.inner.renew(owner, side, leases).await
    }
    async fn delete_expired(&self, expiry: &Expiry) -> Result<(u64, u64), StorageError> {
        self.inner.delete_expired(expiry).await
    }
    async fn listen(&self, wake: Wake, cancelled: CancellationToken) {
        self.inner.listen(wake, cancelled).await;
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Monitor for Choosy {
    async fn list(&self, query: &Query) -> Result<Vec<Row>, StorageError> {
        self.inner.list(query).await
    }
    async fn list_ids(&self, query: &Query) -> Result<Vec<i64>, StorageError> {
        self.inner.list_ids(query).await
    }

    async fn get(&self, side: Side, id: i64) -> Result<Option<Row>, StorageError> {
        self.inner.get(side, id).await
    }
    async fn find(&self, side: Side, message_id: &str) -> Result<Vec<Row>, StorageError> {
        self.inner.find(side, message_id).await
    }
    async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        self.inner.attempts(side, id).await
    }
    async fn rerun(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> Result<Vec<i64>, StorageError> {
        self.inner.rerun(side, ids, among, change).await
    }
    async fn cancel(&self, ids: &[i64], keep: Duration) -> Result<Vec<i64>, StorageError> {
        self.inner.cancel(ids, keep).await
    }
    async fn delete(&self, side: Side, ids: &[i64], among: Among) -> Result<Vec<i64>, StorageError> {
        self.inner.delete(side, ids, among).await
    }
    async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        self.inner.counts().await
    }
}

fn headers(id: &str) -> Headers {
    [("cap-msg-id", id), ("cap-msg-name", "work")].into_iter().collect()
}

async fn send(broker: &MemoryTransport, id: &str, what: &str) {
    let body = serde_json::to_vec(what).unwrap();
    broker.publish_raw("work", headers(id), Headers::new(), body).await.unwrap();
}

/// A bus on such a store, whose queue at the broker holds four messages, those included that are not acknowledged.
async fn choosy() -> (Choosy, MemoryTransport, Cap, support::Seen<String>) {
    let (storage, broker) = (Choosy::default(), MemoryTransport::with_capacity(4));
    let (noted, seen) = log();
    let cap = on(&MemoryStorage::new(), &broker)
        .storage(storage.clone())
        .configure(|options| options.prefetch = 4)
        .subscribe("work", move |what: String| {
            noted.note(what);
            async {}
        })
        .start()
        .await
        .unwrap();
    (storage, broker, cap, seen)
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_is_parked_as_far_as_it_can_be_stored() {
    let (_, broker, cap, mut seen) = choosy().await;
    for number in 0..20 {
        let mut odd = headers(&format!("odd-{number}"));
        odd.insert("sender", "someone \u{1} odd");
        broker.publish_raw("work", odd, Headers::new(), "\"odd\"").await.unwrap();
        send(&broker, &format!("good-{number}"), "good").await;
        assert_eq!(seen.next().await, "good", "neither the queue nor the prefetch is used up");
    }
    send(&broker, "again", "taken").await;
    assert_eq!(seen.next().await, "taken", "under another row id");
    let parked = cap.messages().parked().list().await.unwrap();
    assert_eq!(parked.len(), 20);
    for row in parked {
        assert_eq!((row.reason, &row.message.body[..]), (Some(Reason::Corrupt), &b"\"odd\""[..]));
        assert_eq!(row.message.headers.get("sender"), Some("someone \u{fffd} odd"));
        assert!(row.last_error.unwrap().contains("not this"));
    }
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn message_that_cannot_be_parked_stays_at_the_broker() {
    let (storage, broker, cap, mut seen) = choosy().await;
    for number in 0..3 {
        send(&broker, &format!("never-{number}"), "never").await;
    }
    tokio::time::sleep(100 * SECOND).await;
    let before = storage.refusals.load(Ordering::Relaxed);
    tokio::time::sleep(1000 * SECOND).await;
    let tries = storage.refusals.load(Ordering::Relaxed) - before;
    assert!((100..4000).contains(&tries), "{tries} tries in a thousand seconds");
    assert!(!cap.health().await.is_healthy(), "it is said");
    send(&broker, "good", "good").await;
    assert_eq!(seen.next().await, "good");
    storage.tolerant.store(true, Ordering::Relaxed);
    assert_eq!(seen.take(3).await, ["never"; 3]);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_out_of_order_is_waited_for() {
    let (storage, broker, cap, mut seen) = choosy().await;
    storage.out_of_order.store(true, Ordering::Relaxed);
    for number in 0..4 {
        send(&broker, &format!("{number}"), "late").await;
    }
    tokio::time::sleep(1000 * SECOND).await;
    seen.assert_empty();
    storage.out_of_order.store(false, Ordering::Relaxed);
    assert_eq!(seen.take(4).await, ["late"; 4]);
    assert_eq!(cap.messages().parked().count().await.unwrap(), 0);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn stored_messages_are_acknowledged_without_room_at_handlers() {
    let (storage, broker) = (MemoryStorage::new(), MemoryTransport::with_capacity(4));
    let (noted, mut seen) = log();
    let (open, gate) = watch::channel(false);
    let cap = on(&storage, &broker)
        .configure(|options| options.prefetch = 4)
        .subscribe("work", move |what: String| {
            let (noted, mut gate) = (noted.clone(), gate.clone());
            async move {
                gate.wait_for(|open| *open).await.map_err(HandlerError::failed)?;
                noted.note(what);
                Ok::<_, HandlerError>(())
            }
        })
        .start()
        .await
        .unwrap();
    // The consumer waits for deliveries, with all the room there is; then the claims take it, and one message runs.
    let other = Owner { node: "other".into(), version: "v1".into(), lease: 30 * SECOND };
    let row = |id: i64| NewIncoming {
        id,
        group: "test.v1".into(),
        message: Arc::new(Message::new(headers(&format!("claimed-{id}")), &b"\"claimed\""[..])),
        entry: Entry::Scheduled { held: false },
        identity: Identity::default(),
    };
    let batch = WriteBatch { incoming: (1..=5).map(row).collect(), ..WriteBatch::default() };
    storage.write(&other, &batch).await.unwrap();
    let claimed = async || {
        let rows = cap.messages().list().await.unwrap();
        rows.iter().filter(|row| row.owner.is_some()).count()
    };
    while claimed().await < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for number in 0..5 {
        // The fifth has room in the queue only if the first four are acknowledged.
        send(&broker, &format!("{number}"), "received").await;
    }
    open.send_replace(true);
    let mut all = seen.take(10).await;
    all.sort_unstable();
    assert_eq!(all, [["claimed"; 5], ["received"; 5]].concat());
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test]
async fn a_hook_gives_headers_to_senders_that_write_none() {
    let (transport, storage) = (MemoryTransport::new(), MemoryStorage::new());
    let (noted, mut seen) = log();
    let cap = on(&storage, &transport)
        .map_incoming(|delivery| {
            let id = delivery.properties.get("message-id")?;
            Some([("cap-msg-id", id), ("cap-msg-name", &delivery.routing_key)].into_iter().collect())
        })
        .subscribe("legacy", move |value: u32, id: MessageId| {
            noted.note((value, id.to_string()));
            async {}
        })
        .start()
        .await
        .unwrap();
    let properties: Headers = [("message-id", "m-1")].into_iter().collect();
    transport.publish_raw("legacy", Headers::new(), properties.clone(), "5").await.unwrap();
    transport.publish_raw("legacy", Headers::new(), properties, "5").await.unwrap();
    assert_eq!(seen.next().await, (5, "m-1".to_owned()));
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test]
async fn delivery_parked_without_headers_reruns_with_a_hook() {
    let (transport, storage) = (MemoryTransport::new(), MemoryStorage::new());
    let (parked, mut failures) = log();
    let (noted, mut seen) = log();
    let build = || {
        let (noted, parked) = (noted.clone(), parked.clone());
        on(&storage, &transport)
            .on_failed(move |failure| {
                parked.note(failure.id);
                async {}
            })
            .subscribe("legacy", move |value: u32, id: MessageId| {
                noted.note((value, id.to_string()));
                async {}
            })
    };
    let cap = build().start().await.unwrap();
    let properties: Headers = [("message-id", "m-1")].into_iter().collect();
    transport.publish_raw("legacy", Headers::new(), properties, "5").await.unwrap();
    let id = failures.next().await;
    assert_eq!(cap.messages().rerun(&[id]).await.unwrap(), [id]);
    assert_eq!(failures.next().await, id, "without a hook it is parked again");
    cap.shutdown().await.unwrap();

    let cap = build()
        .map_incoming(|delivery| {
            let id = delivery.properties.get("message-id")?;
            Some([("cap-msg-id", id), ("cap-msg-name", &delivery.routing_key)].into_iter().collect())
        })
        .start()
        .await
        .unwrap();
    assert_eq!(cap.messages().rerun(&[id]).await.unwrap(), [id]);
    assert_eq!(seen.next().await, (5, "m-1".to_owned()));
    cap.shutdown().await.unwrap();
    failures.assert_empty();
}
