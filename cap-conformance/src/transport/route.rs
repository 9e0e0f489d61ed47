//! Routing: which groups get a message, and how many copies.

use cap_adapter::transport::{Sent, Transport};

use super::TransportFixture;
use super::bus::{Bus, accept, ids, message, messages, take};
use crate::patience::in_time;

/// The sender learns for each message whether any queue has it.
pub async fn a_message_is_routed_or_not<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    assert_eq!(bus.send(&[message("early", "order.created")]).await, [Sent::Unrouted]);
    let mut consumer = bus.consume("billing", &["order.created"], 10).await;
    let mixed = [
        message("1", "order.created"),
        message("2", "order.paid"),
        message("3", "order"),
        message("4", "order.created"),
        message("5", "order.created.twice"),
    ];
    let expected = [Sent::Routed, Sent::Unrouted, Sent::Unrouted, Sent::Routed, Sent::Unrouted];
    assert_eq!(bus.send(&mixed).await, expected, "in the order of the messages");
    assert_eq!(ids(&accept(&mut consumer, 2).await), ["1", "4"], "what was sent too early is gone");
    drop(consumer);
    in_time("the transport to close", bus.transport.close()).await;
}

/// No messages, no answers.
pub async fn nothing_to_send_is_no_error<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    assert_eq!(bus.send(&[]).await, []);
}

/// Every group that wants a message has its own copy, to be acknowledged for itself.
pub async fn each_group_gets_a_copy<F: TransportFixture>(fixture: &F) {
    let (a, b) = (Bus::open(fixture).await, Bus::open(fixture).await);
    let mut billing = a.consume("billing", &["order.created", "order.paid"], 10).await;
    let mut stock = b.consume("stock", &["order.created"], 10).await;
    a.send_routed(&[
        message("1", "order.created"),
        message("2", "order.paid"),
        message("3", "order.created"),
    ])
    .await;
    assert_eq!(ids(&accept(&mut billing, 3).await), ["1", "2", "3"]);
    assert_eq!(ids(&accept(&mut stock, 2).await), ["1", "3"]);
}

/// Nodes of one service divide the messages of their group.
pub async fn members_of_a_group_share<F: TransportFixture>(fixture: &F) {
    let (a, b) = (Bus::open(fixture).await, Bus::open(fixture).await);
    let mut one = a.consume("billing", &["order.created"], 5).await;
    let mut two = b.consume("billing", &["order.created"], 5).await;
    a.send_routed(&messages("m", 10, "order.created")).await;
    // Neither acknowledges, so that each can have no more than its prefetch, and the other must have the rest.
    let (one, two) = (take(&mut one, 5).await, take(&mut two, 5).await);
    let mut all = ids(&one);
    all.extend(ids(&two));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 10, "each message went to one of them");
}

/// `*` is one word and `#` any number, none included; dots divide words; case counts.
pub async fn wildcards_follow_amqp<F: TransportFixture>(fixture: &F) {
    let topics =
        ["order", "order.created", "order.7.created", "order.7.paid.late", "Order.created", "created"];
    let table: [(&str, &[&str]); 9] = [
        ("order.created", &["order.created"]),
        ("order.*", &["order.created"]),
        ("*.created", &["order.created", "Order.created"]),
        ("order.#", &["order", "order.created", "order.7.created", "order.7.paid.late"]),
        ("#", &topics),
        ("*", &["order", "created"]),
        ("#.created", &["order.created", "order.7.created", "Order.created", "created"]),
        ("order.*.#", &["order.created", "order.7.created", "order.7.paid.late"]),
        ("*.*.*", &["order.7.created"]),
    ];
    let bus = Bus::open(fixture).await;
    let mut consumers = Vec::new();
    for (number, (pattern, _)) in table.iter().enumerate() {
        // The second topic ends the case: whatever is not before it in a queue will not come.
        consumers.push(bus.consume(&format!("group{number}"), &[pattern, "the.end"], 50).await);
    }
    for topic in topics {
        bus.send_routed(&[message(topic, topic)]).await;
    }
    bus.send_routed(&[message("end", "the.end")]).await;
    for ((pattern, expected), mut consumer) in table.into_iter().zip(consumers) {
        let mut found = Vec::new();
        loop {
            let taken = accept(&mut consumer, 1).await.remove(0);
            if taken.routing_key == "the.end" {
                break;
            }
            found.push(taken.routing_key);
        }
        assert_eq!(found, expected, "{pattern}");
    }
}

/// Several topics of one group that all want a message still make one copy of it.
pub async fn overlapping_topics_give_one_copy<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut consumer = bus.consume("billing", &["order.*", "order.#", "#", "order.created"], 10).await;
    bus.send_routed(&[message("1", "order.created"), message("2", "order.paid"), message("end", "end")])
        .await;
    assert_eq!(ids(&accept(&mut consumer, 3).await), ["1", "2", "end"]);
}

/// Another member of the group may want what this one does not: its topics stay.
pub async fn topics_are_only_added<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    drop(bus.consume("billing", &["order.created"], 10).await);
    let mut consumer = bus.consume("billing", &["order.paid"], 10).await;
    bus.send_routed(&[message("1", "order.created"), message("2", "order.paid")]).await;
    assert_eq!(ids(&accept(&mut consumer, 2).await), ["1", "2"]);
}

/// Fleets of two versions share a broker and send each other nothing.
pub async fn exchanges_of_two_versions_do_not_meet<F: TransportFixture>(fixture: &F) {
    let old = Bus::open_version(fixture, "v1").await;
    let new = Bus::open_version(fixture, "v2").await;
    let mut at_old = old.consume("billing.v1", &["order.created"], 10).await;
    assert_eq!(new.send(&[message("nobody", "order.created")]).await, [Sent::Unrouted]);
    let mut at_new = new.consume("billing.v2", &["order.created"], 10).await;
    for (bus, id) in [(&old, "old 1"), (&new, "new 1"), (&old, "old 2"), (&new, "new 2")] {
        bus.send_routed(&[message(id, "order.created")]).await;
    }
    assert_eq!(ids(&accept(&mut at_old, 2).await), ["old 1", "old 2"]);
    assert_eq!(ids(&accept(&mut at_new, 2).await), ["new 1", "new 2"]);
}

/// A service that is down for a while finds what was sent meanwhile.
pub async fn a_queue_keeps_messages_without_a_consumer<F: TransportFixture>(fixture: &F) {
    let (a, b) = (Bus::open(fixture).await, Bus::open(fixture).await);
    drop(a.consume("billing", &["order.created"], 10).await);
    b.send_routed(&messages("m", 3, "order.created")).await;
    let mut consumer = a.consume("billing", &["order.created"], 10).await;
    assert_eq!(ids(&accept(&mut consumer, 3).await), ["m1", "m2", "m3"]);
}
