//! Sending to other buses of the process: what is confirmed, and what is not. A transport that has a broker passes.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::transport::{Acknowledge, Confirmed, Consumer, Outbound, Transport};
use tokio::time::timeout;

use super::TransportFixture;
use super::bus::{Bus, acknowledge, id, ids, message, take};
use crate::patience::in_time;

const TOPIC: &str = "order.created";

/// How long a case looks for what must not come.
const GLANCE: Duration = Duration::from_millis(300);

impl<F: TransportFixture> Bus<'_, F> {
    async fn send_confirmed(&self, id: &str, except: &[&str]) -> Confirmed {
        let except = except.iter().map(|group| self.group(group)).collect();
        let outbound = [Outbound::new(message(id, TOPIC), except)];
        let answers = in_time("answers to a confirmed send", self.transport.send_confirmed(&outbound)).await;
        let [answer] = <[_; 1]>::try_from(answers).expect("one answer for each message");
        answer.expect("the transport takes the message")
    }

    fn confirmed(&self, stored: &[&str], pending: &[&str]) -> Confirmed {
        let names = |groups: &[&str]| groups.iter().map(|group| self.group(group)).collect::<Vec<Arc<str>>>();
        Confirmed::new(names(stored), names(pending))
    }
}

/// A message is confirmed when its group has acknowledged it, and not when it has been handed out; what nobody wants
/// has no groups.
pub async fn what_is_acknowledged_is_confirmed<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    if !bus.transport.is_in_process() {
        return;
    }
    assert_eq!(bus.send_confirmed("nobody's", &[]).await, Confirmed::default());
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    let mut sending = Box::pin(bus.send_confirmed("1", &[]));
    let taken = tokio::select! {
        biased;
        taken = take(&mut consumer, 1) => taken,
        confirmed = &mut sending => panic!("it was not even handed out: {confirmed:?}"),
    };
    assert_eq!(id(&taken[0]), "1");
    assert!(timeout(GLANCE, &mut sending).await.is_err(), "it is not acknowledged yet");
    acknowledge(&mut consumer, &taken, Acknowledge::Accept).await;
    assert_eq!(sending.await, bus.confirmed(&["billing"], &[]));
}

/// Groups that have the message already do not get it, and are not waited for.
pub async fn excepted_groups_are_left_out<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    if !bus.transport.is_in_process() {
        return;
    }
    let mut billing = bus.consume("billing", &[TOPIC], 10).await;
    let mut stock = bus.consume("stock", &[TOPIC], 10).await;
    let (confirmed, ()) = tokio::join!(bus.send_confirmed("1", &["billing"]), async {
        let taken = take(&mut stock, 1).await;
        acknowledge(&mut stock, &taken, Acknowledge::Accept).await;
    });
    assert_eq!(confirmed, bus.confirmed(&["stock"], &[]));
    bus.send_routed(&[message("end", TOPIC)]).await;
    assert_eq!(ids(&take(&mut billing, 1).await), ["end"]);
}

/// A queue that nobody consumes keeps nothing for a sender that is to send it again, nor does one whose consumer goes.
pub async fn groups_that_are_gone_are_pending<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    if !bus.transport.is_in_process() {
        return;
    }
    drop(bus.consume("billing", &[TOPIC], 10).await);
    assert_eq!(bus.send_confirmed("1", &[]).await, bus.confirmed(&[], &["billing"]));
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    let (confirmed, ()) = tokio::join!(bus.send_confirmed("2", &[]), async {
        drop(take(&mut consumer, 1).await);
        drop(consumer);
    });
    assert_eq!(confirmed, bus.confirmed(&[], &["billing"]));
    bus.send_routed(&[message("end", TOPIC)]).await;
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    assert_eq!(ids(&take(&mut consumer, 1).await), ["end"]);
}

/// A group that does not acknowledge in time is pending, and what it was not handed is taken back.
pub async fn a_group_that_takes_too_long_is_pending<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    if !bus.transport.is_in_process() {
        return;
    }
    let mut consumer = bus.consume("billing", &[TOPIC], 1).await;
    assert_eq!(bus.send_confirmed("1", &[]).await, bus.confirmed(&[], &["billing"]));
    bus.send_routed(&[message("2", TOPIC)]).await;
    assert_eq!(ids(&take(&mut consumer, 1).await), ["2"]);
    assert_eq!(bus.send_confirmed("3", &[]).await, bus.confirmed(&[], &["billing"]));
    acknowledge(&mut consumer, &[], Acknowledge::Accept).await;
    assert!(timeout(GLANCE, consumer.receive(10)).await.is_err(), "neither is delivered any more");
}
