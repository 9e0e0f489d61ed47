//! Consuming: order, limits, acknowledging, and what becomes of the unacknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cap_adapter::error::TransportError;
use cap_adapter::message::Message;
use cap_adapter::transport::{Acknowledge, Consumer, Incoming, Sent, Transport};
use tokio::time::timeout;

use super::TransportFixture;
use super::bus::{Bus, accept, acknowledge, id, ids, message, messages, tags, take};
use crate::patience::{eventually, in_time};

const TOPIC: &str = "order.created";

/// How long a case looks for what must not come. A broken transport may be too slow for it; a right one never fails.
const GLANCE: Duration = Duration::from_millis(300);

/// What one sender sends in order is handed out in order.
pub async fn a_queue_keeps_its_order<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 100).await;
    let messages = messages("m", 200, TOPIC);
    for part in messages.chunks(50) {
        bus.send_routed(part).await;
    }
    let mut arrived = Vec::new();
    while arrived.len() < 200 {
        arrived.extend(accept(&mut consumer, 20).await);
    }
    let expected: Vec<String> = (1..=200).map(|number| format!("m{number}")).collect();
    assert_eq!(ids(&arrived), expected);
}

/// A receive returns at least one and at most as many as were asked for.
pub async fn the_limit_bounds_a_batch<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 100).await;
    bus.send_routed(&messages("m", 10, TOPIC)).await;
    let mut arrived = Vec::new();
    while arrived.len() < 10 {
        let more = in_time("a delivery", consumer.receive(3)).await.expect("deliveries");
        assert!((1..=3).contains(&more.len()), "{}", more.len());
        arrived.extend(more);
    }
    acknowledge(&mut consumer, &arrived, Acknowledge::Accept).await;
    assert_eq!(ids(&arrived).len(), 10);
}

/// Bodies of these sizes, in this order, from `m1` on.
fn sized(sizes: impl IntoIterator<Item = usize>) -> Vec<Arc<Message>> {
    let body = |size| "x".repeat(size);
    let with_body = |(place, size)| {
        let message = message(&format!("m{}", place + 1), TOPIC);
        Arc::new(Message::new(message.headers.clone(), body(size)))
    };
    sizes.into_iter().enumerate().map(with_body).collect()
}

/// A batch has no more bytes than were asked for, unless it is one message.
pub async fn the_bytes_bound_a_batch<F: TransportFixture>(fixture: &F) {
    const BYTES: usize = 25_000;
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume_within("billing", &[TOPIC], 100, usize::MAX).await;
    let sizes = [10_000, 10_000, 10_000, 10_000, 90_000, 100, 100, 10_000, 60_000, 60_000, 100];
    bus.send_routed(&sized(sizes)).await;
    let mut arrived = Vec::new();
    while arrived.len() < sizes.len() {
        let more = in_time("a delivery", consumer.receive_within(100, BYTES)).await.expect("deliveries");
        let total: usize = more.iter().map(Incoming::size).sum();
        assert!(more.len() == 1 || total <= BYTES, "{} messages with {total} bytes", more.len());
        acknowledge(&mut consumer, &more, Acknowledge::Accept).await;
        arrived.extend(more);
    }
    let found: Vec<usize> = arrived.iter().map(|incoming| incoming.body.len()).collect();
    assert_eq!(found, sizes);
}

/// A consumer with little room for bytes gets messages of all sizes in their order, each once, also when it gives up
/// waiting now and then.
pub async fn a_consumer_short_of_memory_misses_nothing<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume_within("billing", &[TOPIC], 50, 100_000).await;
    let messages = sized((0..300).map(|place| [200, 30_000, 500, 70_000, 150_000][place * place / 40 % 5]));
    each_arrives_once_and_in_order(&bus, &mut consumer, &messages, 5000, async |consumer| {
        consumer.receive_within(10, 100_000).await
    })
    .await;
}

/// No more is handed out than may be unacknowledged; each that is acknowledged makes room for one.
pub async fn the_prefetch_bounds_what_is_unacknowledged<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 3).await;
    bus.send_routed(&messages("m", 10, TOPIC)).await;
    let taken = take(&mut consumer, 3).await;
    assert_eq!(ids(&taken), ["m1", "m2", "m3"]);
    assert!(timeout(GLANCE, consumer.receive(10)).await.is_err(), "a fourth is not handed out");
    acknowledge(&mut consumer, &taken[..1], Acknowledge::Accept).await;
    assert_eq!(ids(&take(&mut consumer, 1).await), ["m4"]);
    assert!(timeout(GLANCE, consumer.receive(10)).await.is_err(), "room for one was room for one");
    acknowledge(&mut consumer, &taken[1..], Acknowledge::Accept).await;
    assert_eq!(ids(&take(&mut consumer, 2).await), ["m5", "m6"]);
}

/// Acknowledging goes by tag: what lies between the acknowledged stays unacknowledged.
pub async fn any_of_a_batch_may_be_acknowledged_first<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    bus.send_routed(&messages("m", 6, TOPIC)).await;
    let taken = take(&mut consumer, 6).await;
    acknowledge(&mut consumer, &[taken[1].clone(), taken[2].clone(), taken[5].clone()], Acknowledge::Accept)
        .await;
    acknowledge(&mut consumer, &[], Acknowledge::Accept).await;
    acknowledge(&mut consumer, &taken[3..4], Acknowledge::Accept).await;
    drop(consumer);
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    let again = accept(&mut consumer, 2).await;
    assert_eq!(ids(&again).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["m1", "m5"]));
}

/// The broker forgets what is stored.
pub async fn what_is_acknowledged_does_not_come_again<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    bus.send_routed(&messages("m", 5, TOPIC)).await;
    accept(&mut consumer, 5).await;
    drop(consumer);
    bus.send_routed(&[message("end", TOPIC)]).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    // A broker may still have handed it to the dropped consumer, and so call it redelivered.
    assert_eq!(ids(&accept(&mut consumer, 1).await), ["end"]);
}

/// A process dies: what it had not acknowledged goes to another, marked; what waited behind it comes too.
pub async fn what_a_dropped_consumer_had_is_redelivered<F: TransportFixture>(fixture: &F) {
    let (a, b) = (Bus::open(fixture).await, Bus::open(fixture).await);
    let mut consumer = a.consume("billing", &[TOPIC], 4).await;
    a.send_routed(&messages("m", 6, TOPIC)).await;
    let taken = take(&mut consumer, 4).await;
    acknowledge(&mut consumer, &taken[..1], Acknowledge::Accept).await;
    drop(consumer);
    let mut consumer = b.consume("billing", &[TOPIC], 10).await;
    let mut arrived = accept(&mut consumer, 5).await;
    arrived.sort_by(|a, b| id(a).cmp(id(b)));
    assert_eq!(ids(&arrived), ["m2", "m3", "m4", "m5", "m6"]);
    let held = arrived.iter().filter(|incoming| ["m2", "m3", "m4"].contains(&id(incoming)));
    assert!(held.into_iter().all(|incoming| incoming.redelivered), "the broker has tried these before");
}

/// What a node cannot take now is delivered again, here or elsewhere, marked and unchanged.
pub async fn what_is_requeued_comes_again<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    bus.send_routed(&messages("m", 3, TOPIC)).await;
    let taken = take(&mut consumer, 3).await;
    acknowledge(&mut consumer, &taken[..2], Acknowledge::Requeue).await;
    acknowledge(&mut consumer, &taken[2..], Acknowledge::Accept).await;
    let mut again = accept(&mut consumer, 2).await;
    again.sort_by(|a, b| id(a).cmp(id(b)));
    assert_eq!(ids(&again), ["m1", "m2"]);
    assert!(again.iter().all(|incoming| incoming.redelivered));
    assert_eq!(again[0].body, taken[0].body);
    assert!(again.iter().all(|incoming| !tags(&taken).contains(&incoming.tag)), "under new tags");
    bus.send_routed(&[message("end", TOPIC)]).await;
    assert_eq!(ids(&accept(&mut consumer, 1).await), ["end"], "once acknowledged they are gone");
}

/// A receive that is given up takes nothing with it, whenever that is.
pub async fn a_dropped_receive_loses_nothing<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 20).await;
    let messages = messages("m", 300, TOPIC);
    each_arrives_once_and_in_order(&bus, &mut consumer, &messages, 1000, async |consumer| {
        consumer.receive(4).await
    })
    .await;
}

/// Sends while it receives, and drops each call that takes longer than its patience, which is at most this many microseconds.
async fn each_arrives_once_and_in_order<F: TransportFixture, C: Consumer>(
    bus: &Bus<'_, F>,
    consumer: &mut C,
    messages: &[Arc<Message>],
    most: u64,
    receive: impl AsyncFn(&mut C) -> Result<Vec<Incoming>, TransportError>,
) {
    let send = async {
        for part in messages.chunks(7) {
            bus.send_routed(part).await;
        }
    };
    let receive = async {
        let (mut arrived, mut patience) = (Vec::new(), 0);
        eventually("every message to arrive", async || {
            for _ in 0..50 {
                patience = (patience + 37) % most;
                if let Ok(more) = timeout(Duration::from_micros(patience), receive(consumer)).await {
                    let more = more.expect("deliveries");
                    acknowledge(consumer, &more, Acknowledge::Accept).await;
                    arrived.extend(more);
                }
            }
            (arrived.len() >= messages.len()).then_some(())
        })
        .await;
        arrived
    };
    let ((), mut arrived) = tokio::join!(send, receive);
    let expected: Vec<String> = (1..=messages.len()).map(|number| format!("m{number}")).collect();
    // A broker may deliver a message again that was on its way while the consumer changed how much it takes: marked as
    // redelivered, and later than its turn. A quorum queue does.
    let number = |incoming: &Incoming| id(incoming)[1..].parse::<usize>().expect("a number");
    let in_turn: Vec<usize> = arrived.iter().filter(|incoming| !incoming.redelivered).map(number).collect();
    assert!(in_turn.is_sorted(), "what is delivered once comes in order: {in_turn:?}");
    arrived.sort_by_key(number);
    assert_eq!(ids(&arrived), expected, "each once");
}

/// Several sends under way on one transport do not get in each other's way, or into each other's answers.
pub async fn sends_at_the_same_time_all_arrive<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 50).await;
    let (a, b, c) = (messages("a", 60, TOPIC), messages("b", 60, "no.queue"), messages("c", 60, TOPIC));
    let (a, b, c) = tokio::join!(bus.send(&a), bus.send(&b), bus.send(&c));
    assert_eq!((a, b, c), (vec![Sent::Routed; 60], vec![Sent::Unrouted; 60], vec![Sent::Routed; 60]));
    let mut arrived = BTreeSet::new();
    for _ in 0..12 {
        arrived.extend(accept(&mut consumer, 10).await.iter().map(|incoming| id(incoming).to_owned()));
    }
    assert_eq!(arrived.len(), 120);
    assert!(arrived.iter().all(|id| id.starts_with(['a', 'c'])));
}

/// Every connection is cut. A bus that does as the traits say, asking again for what has ended, misses nothing.
pub async fn an_interruption_loses_nothing<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 4).await;
    bus.send_routed(&messages("m", 6, TOPIC)).await;
    let held = take(&mut consumer, 2).await;
    if !fixture.interrupt().await {
        return;
    }
    eventually("a send to succeed again", async || {
        let answers = bus.transport.send(&[message("after", TOPIC)]).await;
        answers.into_iter().all(|answer| answer.is_ok()).then_some(())
    })
    .await;
    let (mut arrived, mut consumer) = (BTreeSet::new(), Some(consumer));
    eventually("every message to arrive", async || {
        let Some(current) = &mut consumer else {
            consumer = bus.try_consume("billing", &[TOPIC], 4).await.ok();
            return None;
        };
        match timeout(GLANCE, current.receive(10)).await {
            Err(_nothing_yet) => {}
            Ok(Ok(more)) => {
                let _ = current.acknowledge(&tags(&more), Acknowledge::Accept).await;
                arrived.extend(more.iter().map(|incoming| id(incoming).to_owned()));
            }
            Ok(Err(_ended)) => {
                let acknowledged = current.acknowledge(&tags(&held), Acknowledge::Accept).await;
                assert!(acknowledged.is_ok(), "acknowledging what is gone is no error: {acknowledged:?}");
                consumer = None;
            }
        }
        (arrived.len() == 7).then_some(())
    })
    .await;
    let expected = ["after", "m1", "m2", "m3", "m4", "m5", "m6"].map(str::to_owned);
    assert_eq!(arrived, BTreeSet::from(expected));
}
