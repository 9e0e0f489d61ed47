//! Queues of another service: consumed without declaring them.

use cap_adapter::transport::Transport;

use super::TransportFixture;
use super::bus::{Bus, accept, ids, message};
use crate::patience::in_time;

/// Its messages come; that the consumer wants other topics changes nothing about what goes into it.
pub async fn a_queue_that_is_there_is_consumed_as_it_is<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    drop(bus.consume("dead", &["order.created"], 10).await);
    bus.send_routed(&[message("1", "order.created")]).await;
    let spec = bus.existing("dead", &["order.paid"]);
    let mut consumer = in_time("a consumer", bus.transport.consume(&spec)).await.expect("a consumer");
    let sent = bus.send(&[message("2", "order.paid"), message("3", "order.created")]).await;
    assert_eq!(sent, [cap_adapter::transport::Sent::Unrouted, cap_adapter::transport::Sent::Routed]);
    assert_eq!(ids(&accept(&mut consumer, 2).await), ["1", "3"]);
}

/// A queue that is not there is an error that passes, nothing is declared in its place, and others are not harmed.
pub async fn a_queue_that_is_not_there_is_awaited<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    let mut other = bus.consume("other", &["order.created"], 10).await;
    let spec = bus.existing("dead", &["order.paid"]);
    for _ in 0..2 {
        let error = in_time("an answer", bus.transport.consume(&spec)).await.err().expect("an error");
        assert!(error.is_unavailable(), "{error}");
        assert!(error.to_string().contains(&*spec.group), "{error} names no queue");
    }
    bus.send_routed(&[message("1", "order.created")]).await;
    assert_eq!(ids(&accept(&mut other, 1).await), ["1"]);
    drop(bus.consume("dead", &["order.paid"], 10).await);
    bus.send_routed(&[message("2", "order.paid")]).await;
    let mut consumer = in_time("a consumer", bus.transport.consume(&spec)).await.expect("it is there now");
    assert_eq!(ids(&accept(&mut consumer, 1).await), ["2"]);
}
