//! Tests of what only the in-memory pair guarantees: tokio's clock, bounded queues, outages on demand, wake-ups.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::{MemoryConsumer, MemoryStorage, MemoryTransport};
use cap_adapter::error::{StorageErrorKind, TransportError, TransportErrorKind};
use cap_adapter::message::{Headers, Message, TopicPattern};
use cap_adapter::monitor::Monitor;
use cap_adapter::storage::{
    ClaimRequest, Claims, Lease, NewOutgoing, NodeRequest, Owner, RowCompletion, RowOutcome, Side, Storage,
    Wake, WriteBatch,
};
use cap_adapter::transport::{
    Acknowledge, BrokerDelay, Consumer, Delayed, Destination, GroupSpec, Incoming, Sent, Transport,
    TransportContext,
};

const LEASE: Duration = Duration::from_secs(30);

fn owner(node: &str) -> Owner {
    Owner { node: node.into(), version: "v1".into(), lease: LEASE }
}

fn message(id: i64) -> Arc<Message> {
    let headers = [("cap-msg-id", id.to_string()), ("cap-msg-name", "order.created".to_owned())];
    Arc::new(Message::new(headers.into_iter().collect(), "{}"))
}

fn outgoing(id: i64, held: bool) -> WriteBatch {
    let new = NewOutgoing { id, message: message(id), delay: None, held };
    WriteBatch { outgoing: vec![new], ..WriteBatch::default() }
}

fn completed(id: i64, outcome: RowOutcome) -> WriteBatch {
    let row_completion = RowCompletion { lease: Lease { id, epoch: 1 }, outcome, publishes: Vec::new() };
    WriteBatch { completed_outgoing: vec![row_completion], ..WriteBatch::default() }
}

async fn claim(storage: &MemoryStorage, node: &str) -> Claims {
    let request = ClaimRequest::new(Side::Outbox, Vec::new(), 10);
    storage.claim(&owner(node), &request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_decides_when_leases_end() {
    let storage = MemoryStorage::new();
    storage.write(&owner("a"), &outgoing(1, true)).await.unwrap();
    tokio::time::advance(Duration::from_millis(29_999)).await;
    let claims = claim(&storage, "b").await;
    assert!(claims.rows.is_empty());
    assert_eq!(claims.next_due, Some(Duration::from_millis(1)));
    tokio::time::advance(Duration::from_millis(1)).await;
    let claims = claim(&storage, "b").await;
    assert_eq!((claims.rows[0].lease, claims.rows[0].age), (Lease { id: 1, epoch: 2 }, LEASE));
    let row = storage.get(Side::Outbox, 1).await.unwrap().unwrap();
    assert_eq!(row.due.unwrap().duration_since(row.added).unwrap(), 2 * LEASE, "people's times follow");
}

#[tokio::test(start_paused = true)]
async fn a_node_takes_the_number_that_was_free_for_the_longest() {
    let storage = MemoryStorage::new();
    let request = |node: String, lease| NodeRequest {
        node: node.into(),
        worker: None,
        lease,
        succeeded_expire_after: lease,
    };
    for number in 0..1024_u64 {
        let lease = LEASE + Duration::from_secs(if number == 700 { 1 } else { 2 });
        storage.join(&request(format!("node-{number}"), lease)).await.unwrap();
    }
    let late = request("late".to_owned(), LEASE);
    let error = storage.join(&late).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unavailable, "{error}");
    tokio::time::advance(LEASE + Duration::from_secs(5)).await;
    assert_eq!(storage.join(&late).await.unwrap(), 700);
}

/// Whether the other node was woken by the batch.
async fn wakes(batches: &[WriteBatch]) -> bool {
    let (storage, wake) = (MemoryStorage::new(), Wake::default());
    let mut listening = Box::pin(storage.listen(wake.clone(), CancellationToken::new()));
    assert!(listening.as_mut().now_or_never().is_none());
    let (last, first) = batches.split_last().unwrap();
    for batch in first {
        storage.write(&owner("a"), batch).await.unwrap();
        let _ = wake.woken(Side::Outbox).now_or_never();
    }
    storage.write(&owner("a"), last).await.unwrap();
    let woken = wake.woken(Side::Outbox).now_or_never().is_some();
    drop(listening);
    storage.write(&owner("a"), &outgoing(99, false)).await.unwrap();
    assert!(wake.woken(Side::Outbox).now_or_never().is_none(), "nobody listens any more");
    woken
}

#[tokio::test]
async fn whatever_leaves_a_row_to_anyone_wakes_the_others() {
    let error = || "no".to_owned();
    assert!(wakes(&[outgoing(1, false)]).await);
    assert!(!wakes(&[outgoing(1, true)]).await);
    let release = RowOutcome::Release { after: Duration::ZERO };
    assert!(wakes(&[outgoing(1, true), completed(1, release)]).await);
    let retry = RowOutcome::Retry { after: LEASE, hold: false, error: error() };
    assert!(wakes(&[outgoing(1, true), completed(1, retry)]).await);
    let hold = RowOutcome::Retry { after: LEASE, hold: true, error: error() };
    assert!(!wakes(&[outgoing(1, true), completed(1, hold)]).await);
}

async fn consumer(transport: &MemoryTransport, group: &str, prefetch: u16) -> MemoryConsumer {
    let topics = vec![TopicPattern::parse("order.#").unwrap()];
    transport.consume(&GroupSpec::new(group, topics, prefetch)).await.unwrap()
}

async fn send(transport: &MemoryTransport, id: i64) -> Result<Sent, TransportError> {
    transport.send(&[message(id)]).await.remove(0)
}

fn ids(incoming: &[Incoming]) -> Vec<i64> {
    incoming.iter().map(|incoming| incoming.headers.get("cap-msg-id").unwrap().parse().unwrap()).collect()
}

fn kind<T: std::fmt::Debug>(outcome: Result<T, TransportError>) -> TransportErrorKind {
    outcome.unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_its_senders_wait() {
    let transport = MemoryTransport::with_capacity(2);
    let mut full = consumer(&transport, "full", 10).await;
    let mut other = consumer(&transport, "other", 10).await;
    for id in [1, 2] {
        assert_eq!(send(&transport, id).await.unwrap(), Sent::Routed);
    }
    let taken = other.receive(10).await.unwrap();
    other.acknowledge(&[1, 2], Acknowledge::Accept).await.unwrap();
    assert_eq!(ids(&taken), [1, 2]);

    // Unacknowledged messages still take room, and no queue gets a copy while one of them is full.
    let taken = full.receive(10).await.unwrap();
    assert_eq!(kind(send(&transport, 3).await), TransportErrorKind::Unavailable);
    assert!(other.receive(10).now_or_never().is_none());

    let waiting = tokio::spawn({
        let transport = transport.clone();
        async move { send(&transport, 4).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    full.acknowledge(&[taken[0].tag], Acknowledge::Accept).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Sent::Routed);
    assert_eq!(ids(&other.receive(10).await.unwrap()), [4]);
}

#[tokio::test]
async fn queues_without_room_for_anything_are_refused_at_the_start() {
    let context = TransportContext::new("a", "v1");
    let outcome = MemoryTransport::with_capacity(0).start(&context);
    assert_eq!(kind(outcome), TransportErrorKind::Unusable);
    MemoryTransport::with_capacity(1).start(&context).unwrap();
}

#[tokio::test]
async fn what_comes_back_takes_its_old_place() {
    let transport = MemoryTransport::new();
    let mut one = consumer(&transport, "g", 3).await;
    let mut two = consumer(&transport, "g", 3).await;
    for id in 1..=8 {
        send(&transport, id).await.unwrap();
    }
    assert_eq!(ids(&one.receive(3).await.unwrap()), [1, 2, 3]);
    assert_eq!(ids(&two.receive(3).await.unwrap()), [4, 5, 6]);
    two.acknowledge(&[2], Acknowledge::Accept).await.unwrap();
    two.acknowledge(&[3, 1], Acknowledge::Requeue).await.unwrap();
    drop(one);
    let back = consumer(&transport, "g", 10).await.receive(10).await.unwrap();
    assert_eq!(ids(&back), [1, 2, 3, 4, 6, 7, 8]);
    let redelivered: Vec<bool> = back.iter().map(|incoming| incoming.redelivered).collect();
    assert_eq!(redelivered, [true, true, true, true, true, false, false]);
}

#[tokio::test]
async fn an_outage_ends_every_call_and_loses_nothing() {
    let transport = MemoryTransport::new();
    let mut held = consumer(&transport, "g", 2).await;
    let mut waiting = consumer(&transport, "idle", 2).await;
    for id in 1..=3 {
        send(&transport, id).await.unwrap();
    }
    waiting.receive(2).await.unwrap();
    assert_eq!(ids(&held.receive(2).await.unwrap()), [1, 2]);
    let waiting = tokio::spawn(async move { waiting.receive(1).await });
    tokio::task::yield_now().await;

    transport.clone().set_available(false);
    assert_eq!(kind(waiting.await.unwrap()), TransportErrorKind::Unavailable);
    assert_eq!(kind(held.receive(1).await), TransportErrorKind::Unavailable);
    assert_eq!(kind(held.acknowledge(&[1], Acknowledge::Accept).await), TransportErrorKind::Unavailable);
    assert_eq!(kind(send(&transport, 4).await), TransportErrorKind::Unavailable);
    let spec = GroupSpec::new("g", Vec::new(), 1);
    assert_eq!(kind(transport.consume(&spec).await), TransportErrorKind::Unavailable);

    transport.set_available(true);
    assert_eq!(kind(held.receive(1).await), TransportErrorKind::Unavailable, "it has ended");
    held.acknowledge(&[1], Acknowledge::Accept).await.unwrap();
    let back = consumer(&transport, "g", 10).await.receive(10).await.unwrap();
    assert_eq!(ids(&back), [1, 2, 3]);
    assert!(back[0].redelivered && back[1].redelivered && !back[2].redelivered);
}

#[tokio::test]
async fn raw_messages_arrive_unchanged_and_others_need_a_topic() {
    let transport = MemoryTransport::new();
    let mut consumer = consumer(&transport, "g", 10).await;
    let properties: Headers = [("message-id", "7")].into_iter().collect();
    let sent = transport.publish_raw("order.raw", Headers::new(), properties.clone(), &b"\xff"[..]).await;
    assert_eq!(sent.unwrap(), Sent::Routed);
    let incoming = consumer.receive(1).await.unwrap().remove(0);
    assert_eq!((incoming.routing_key.as_str(), incoming.headers.len()), ("order.raw", 0));
    assert_eq!((incoming.properties, &incoming.body[..]), (properties, &b"\xff"[..]));
    let nameless = Arc::new(Message::default());
    assert_eq!(kind(transport.send(&[nameless]).await.remove(0)), TransportErrorKind::Refused);
}

async fn delay(
    transport: &MemoryTransport,
    id: i64,
    delay: Duration,
    to: Destination,
) -> Result<(), TransportError> {
    transport.delay(&[Delayed::new(message(id), delay, to)]).await.remove(0)
}

fn group(name: &str) -> Destination {
    Destination::Group(name.into())
}

const SECOND: Duration = Duration::from_secs(1);

/// Only the consumers watch the clock, so one of them must wake for the earliest due time.
#[tokio::test(start_paused = true)]
async fn a_waiting_consumer_wakes_when_something_is_due() {
    let transport = MemoryTransport::new();
    let mut one = consumer(&transport, "one", 10).await;
    let mut two = consumer(&transport, "two", 10).await;
    let waiting = tokio::spawn(async move { one.receive(10).await.unwrap() });
    tokio::task::yield_now().await;
    delay(&transport, 1, 60 * SECOND, group("one")).await.unwrap();
    tokio::task::yield_now().await;
    // It sleeps by now, and must be woken for an earlier due time.
    delay(&transport.clone(), 2, SECOND, group("one")).await.unwrap();
    let came = waiting.await.unwrap();
    assert_eq!(ids(&came), [2], "it did not sleep until the other one was due");
    assert!(came[0].delayed);
    assert!(two.receive(10).now_or_never().is_none());
    // The first group has no consumer now. The next one gets all of its messages, and no other group does.
    tokio::time::advance(60 * SECOND).await;
    assert!(two.receive(10).now_or_never().is_none());
    assert_eq!(ids(&consumer(&transport, "one", 10).await.receive(10).await.unwrap()), [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_and_finds_no_room_waits_for_it() {
    let transport = MemoryTransport::with_capacity(2);
    let mut consumer = consumer(&transport, "g", 10).await;
    send(&transport, 1).await.unwrap();
    send(&transport, 2).await.unwrap();
    delay(&transport, 3, SECOND, group("g")).await.unwrap();
    delay(&transport, 4, SECOND, Destination::Topic).await.unwrap();
    // The number of delayed messages is bounded too.
    assert_eq!(kind(delay(&transport, 5, SECOND, group("g")).await), TransportErrorKind::Unavailable);
    tokio::time::advance(SECOND).await;
    let taken = consumer.receive(10).await.unwrap();
    assert_eq!(ids(&taken), [1, 2]);
    assert!(consumer.receive(10).now_or_never().is_none());
    consumer.acknowledge(&[taken[0].tag], Acknowledge::Accept).await.unwrap();
    assert_eq!(ids(&consumer.receive(10).now_or_never().unwrap().unwrap()), [3]);
    consumer.acknowledge(&[taken[1].tag], Acknowledge::Accept).await.unwrap();
    let last = consumer.receive(10).now_or_never().unwrap().unwrap();
    assert_eq!((ids(&last), last[0].delayed), (vec![4], false));
    delay(&transport, 6, SECOND, group("g")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_delayed_outlives_an_outage_and_waits_for_its_queue() {
    let transport = MemoryTransport::new();
    delay(&transport, 1, SECOND, group("later")).await.unwrap();
    transport.set_available(false);
    let outcome = delay(&transport, 2, SECOND, group("later")).await;
    assert_eq!(kind(outcome), TransportErrorKind::Unavailable);
    transport.set_available(true);
    tokio::time::advance(5 * SECOND).await;
    let mut consumer = consumer(&transport, "later", 10).await;
    let came = consumer.receive(10).await.unwrap();
    assert_eq!(ids(&came), [1]);
    consumer.acknowledge(&[came[0].tag], Acknowledge::Requeue).await.unwrap();
    let again = consumer.receive(10).await.unwrap().remove(0);
    assert!(again.delayed && again.redelivered, "how it came is not forgotten");
    let outcome = delay(&transport, 3, Duration::MAX, Destination::Topic).await;
    assert_eq!(kind(outcome), TransportErrorKind::Refused);
}
