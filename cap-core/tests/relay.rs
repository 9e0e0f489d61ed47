//! From the store to the broker: who gets a place, what is known of the broker, and what operators are told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cap_core::error::{StorageError, StorageErrorKind, TransportError, TransportErrorKind};
use cap_core::memory::MemoryConsumer;
use cap_core::prelude::*;
use cap_core::storage::{NewOutgoing, Owner, Reason, Storage, Stored, WriteBatch};
use cap_core::transport::{Consumer, GroupSpec, Sent, Transport, TransportContext};
use cap_core::{AfterCommit, Message, Unrouted, Within};
use support::signs::Signs;
use support::store::{ALL, Shaky};
use support::{alone, log, on};
use tokio::time::Instant;
use tracing::Level;

const SECOND: Duration = Duration::from_secs(1);

/// A transaction of the store in memory: what is published in it is stored when it commits.
struct Transaction {
    after_commit: AfterCommit,
    rows: Vec<NewOutgoing>,
    owner: Option<Owner>,
}

impl Transaction {
    fn begin(cap: &Cap) -> Self {
        Self { after_commit: cap.after_commit(), rows: Vec::new(), owner: None }
    }

    async fn commit(self, storage: &MemoryStorage) {
        let batch = WriteBatch { outgoing: self.rows, ..WriteBatch::default() };
        storage.write(&self.owner.unwrap(), &batch).await.unwrap();
        self.after_commit.committed();
    }
}

impl Within<MemoryStorage> for Transaction {
    async fn store(
        &mut self,
        _: &MemoryStorage,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        self.owner = Some(owner.clone());
        self.rows.extend_from_slice(messages);
        Ok(vec![Stored::New; messages.len()])
    }

    fn after_commit(&mut self) -> Option<&mut AfterCommit> {
        Some(&mut self.after_commit)
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_transaction_holds_up_nobody() {
    let storage = MemoryStorage::new();
    let (noted, mut seen) = log();
    let cap = on(&storage, &MemoryTransport::new())
        .configure(|options| options.relay_buffer = 8)
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    let mut transaction = Transaction::begin(&cap);
    cap.publish_all("work", 0..100u32).within(&mut transaction).await.unwrap();
    let start = Instant::now();
    for n in 100..150u32 {
        cap.publish("work", &n).await.unwrap();
    }
    let mut others = seen.take(50).await;
    others.sort_unstable();
    assert_eq!(others, (100..150).collect::<Vec<_>>());
    assert!(start.elapsed() < 10 * SECOND, "nothing waited for a poll");
    transaction.commit(&storage).await;
    let mut rest = seen.take(100).await;
    rest.sort_unstable();
    assert_eq!(rest, (0..100).collect::<Vec<_>>());
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_an_open_transaction() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let stopping = on(&storage, &transport).start().await.unwrap();
    let mut transaction = Transaction::begin(&stopping);
    stopping.publish("work", &1).within(&mut transaction).await.unwrap();
    let start = Instant::now();
    stopping.shutdown().await.unwrap();
    assert!(start.elapsed() < SECOND);
    let cap = on(&storage, &transport)
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    transaction.commit(&storage).await;
    assert_eq!(seen.next().await, 1, "another node sends it");
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_after_the_relay_has_ended_is_given_back() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let (told, mut failures) = log();
    let stopping = on(&storage, &transport)
        .subscribe("bad", async || Err::<(), _>(HandlerError::permanent("never")))
        .on_failed(move |_| {
            told.note(());
            tokio::time::sleep(20 * SECOND)
        })
        .start()
        .await
        .unwrap();
    let mut transaction = Transaction::begin(&stopping);
    stopping.publish("work", &1).within(&mut transaction).await.unwrap();
    stopping.publish("bad", &1).await.unwrap();
    failures.next().await;
    // The relay has nothing to do, and the bus waits for the callback.
    let shutdown = tokio::spawn({
        let cap = stopping.clone();
        async move { cap.shutdown().await }
    });
    tokio::time::sleep(5 * SECOND).await;
    transaction.commit(&storage).await;
    shutdown.await.unwrap().unwrap();
    let start = Instant::now();
    let cap = on(&storage, &transport)
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    assert_eq!(seen.next().await, 1);
    assert!(start.elapsed() < SECOND, "no lease has to run out, and no probe holds up the start");
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_publishes_under_a_taken_id_is_not_sent() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let topics = vec![cap_core::message::TopicPattern::parse("event").unwrap()];
    let spy = GroupSpec::new("spy", topics, 100);
    let mut spy = transport.consume(&spy).await.unwrap();
    let cap = on(&storage, &transport)
        .subscribe("work", |publisher: Publisher, n: u32| async move {
            publisher.publish("event", &n).message_id("taken").await?;
            publisher.publish("event", &n).message_id(format!("free-{n}")).await.map(drop)
        })
        .start()
        .await
        .unwrap();
    cap.publish("event", &0).message_id("taken").await.unwrap();
    let mut got = Vec::new();
    for n in 1..=2 {
        cap.publish("work", &n).await.unwrap();
        while !got.contains(&format!("free-{n}")) {
            let received = spy.receive(100).await.unwrap();
            got.extend(received.iter().map(|one| one.headers.get("cap-msg-id").unwrap().to_owned()));
        }
    }
    tokio::time::sleep(60 * SECOND).await;
    cap.shutdown().await.unwrap();
    got.sort_unstable();
    assert_eq!(got, ["free-1", "free-2", "taken"]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_bus_knows_whether_its_broker_is_there() {
    for handles in [false, true] {
        let transport = MemoryTransport::new();
        let bus = on(&MemoryStorage::new(), &transport);
        let bus = if handles { bus.subscribe("work", async || ()) } else { bus };
        let cap = bus.start().await.unwrap();
        let health = cap.health().await;
        assert!(health.is_healthy(), "{health:?}");
        transport.set_available(false);
        tokio::time::sleep(60 * SECOND).await;
        let health = cap.health().await;
        assert!(!health.is_healthy() && !health.transport.up && health.storage.up, "{health:?}");
        transport.set_available(true);
        tokio::time::sleep(60 * SECOND).await;
        let health = cap.health().await;
        assert!(health.is_healthy(), "{health:?}");
        cap.shutdown().await.unwrap();
    }
}

/// A broker that takes messages, does not answer probes, and declares no queue.
struct Half {
    inner: MemoryTransport,
    answers_probes: bool,
    declares: bool,
}

impl Transport for Half {
    type Consumer = MemoryConsumer;

    fn name(&self) -> &'static str {
        "half"
    }

    fn start(&self, context: &TransportContext) -> Result<(), TransportError> {
        self.inner.start(context)
    }

    async fn probe(&self) -> Result<(), TransportError> {
        if self.answers_probes { Ok(()) } else { std::future::pending().await }
    }

    async fn send(&self, messages: &[Arc<Message>]) -> Vec<Result<Sent, TransportError>> {
        self.inner.send(messages).await
    }

    async fn consume(&self, spec: &GroupSpec) -> Result<MemoryConsumer, TransportError> {
        if self.declares {
            return self.inner.consume(spec).await;
        }
        Err(TransportError::new(TransportErrorKind::Unavailable, "half", "no queue today"))
    }

    async fn close(&self) {}
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_holds_up_no_message() {
    let (noted, mut seen) = log();
    let cap = alone()
        .transport(Half { inner: MemoryTransport::new(), answers_probes: false, declares: true })
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    let start = Instant::now();
    cap.publish("work", &1).await.unwrap();
    assert_eq!(seen.next().await, 1);
    assert!(start.elapsed() < SECOND);
    assert!(cap.health().await.transport.up, "the message has told");
    tokio::time::sleep(60 * SECOND).await;
    assert!(!cap.health().await.transport.up);
    let start = Instant::now();
    cap.shutdown().await.unwrap();
    assert!(start.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_bus_without_queues_says_that_it_sends_nothing() {
    let signs = Signs::default();
    let _log = signs.log();
    let cap = alone()
        .transport(Half { inner: MemoryTransport::new(), answers_probes: true, declares: false })
        .subscribe("work", async || ())
        .start()
        .await
        .unwrap();
    cap.publish("work", &1).await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    let health = cap.health().await.transport;
    assert!(
        !health.up && health.error.as_ref().is_some_and(|error| error.contains("not declared yet")),
        "{health:?}"
    );
    assert_eq!(signs.lines(Level::WARN, "publishing paused").len(), 1);
    tokio::time::sleep(1200 * SECOND).await;
    assert_eq!(signs.lines(Level::WARN, "publishing paused").len(), 5, "now and then");
    cap.shutdown().await.unwrap();
}

/// The queues are missing because the storage is: the broker is not to blame, however long that lasts.
#[tokio::test(start_paused = true)]
async fn live_broker_stays_up_while_the_storage_is_down() {
    let signs = Signs::default();
    let _log = signs.log();
    let storage = Shaky::default();
    storage.fail(&ALL, StorageErrorKind::Unavailable);
    let cap = alone()
        .storage(storage)
        .transport(Half { inner: MemoryTransport::new(), answers_probes: true, declares: false })
        .subscribe("work", async || ())
        .start()
        .await
        .unwrap();
    tokio::time::sleep(1200 * SECOND).await;
    let health = cap.health().await;
    assert!(health.transport.up && !health.storage.up, "{health:?}");
    assert!(signs.lines(Level::WARN, "publishing paused").is_empty());
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_to_send_is_an_error_and_counted() {
    let signs = Signs::default();
    let (_log, _count) = (signs.log(), signs.count());
    let cap = alone()
        .configure(|options| {
            options.unrouted = Unrouted::Fail;
            options.publish_retry = RetryPolicy::fixed(SECOND, 3);
        })
        .start()
        .await
        .unwrap();
    let id = cap.publish("nobody.listens", &1).await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    cap.shutdown().await.unwrap();
    let row = &cap.messages().published().find(id.as_str()).await.unwrap()[0];
    assert_eq!(row.reason, Some(Reason::Exhausted));
    let errors = signs.lines(Level::ERROR, id.as_str());
    assert!(matches!(&*errors, [error] if error.contains("parked until an operator acts")), "{errors:?}");
    assert_eq!(signs.lines(Level::WARN, "publishing failed").len(), 3);
    assert_eq!((signs.counter("cap_publish_failed_total"), signs.counter("cap_parked_total")), (3, 1));
}

#[tokio::test]
async fn a_reference_to_a_payload_has_the_payloads_type() {
    #[derive(serde::Serialize)]
    struct Reading(u32);
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe("sensor.read", move |headers: CapHeaders| {
            noted.note(headers.get("cap-msg-type").map(str::to_owned));
            async {}
        })
        .start()
        .await
        .unwrap();
    let readings = vec![Reading(1), Reading(2)];
    cap.publish_all("sensor.read", &readings).await.unwrap();
    cap.publish("sensor.read", &&readings[0]).await.unwrap();
    assert_eq!(seen.take(3).await, vec![Some("Reading".to_owned()); 3]);
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn several_messages_cannot_have_one_id() {
    let cap = alone().start().await.unwrap();
    let error = cap.publish_all("t", [1, 2]).header("cap-msg-id", "x").await.unwrap_err().to_string();
    assert!(error.contains("cap-msg-id") && error.contains("several"), "{error}");
    assert!(cap.messages().published().find("x").await.unwrap().is_empty());
    cap.shutdown().await.unwrap();
}
