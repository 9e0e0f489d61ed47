//! Delaying: where what the broker keeps for a while goes, and as what. A transport that cannot delay says so and
//! passes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cap_adapter::message::headers::names;
use cap_adapter::message::{Headers, Message};
use cap_adapter::transport::{Acknowledge, Consumer, Delayed, Destination, Incoming, Transport};
use tokio::time::timeout;

use super::TransportFixture;
use super::bus::{Bus, accept, acknowledge, id, ids, message, tags};
use crate::patience::{eventually, in_time};

const TOPIC: &str = "order.created";
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_mins(10);

impl<F: TransportFixture> Bus<'_, F> {
    /// Whether there is anything to test. It is said aloud if there is not.
    #[allow(clippy::print_stdout, reason = "the test's output is where an operator looks for it")]
    fn can_delay(&self) -> bool {
        let can = self.transport.broker_delay().is_some();
        if !can {
            println!("{} cannot delay messages: nothing to test", self.transport.name());
        }
        can
    }

    fn to(&self, group: &str) -> Destination {
        Destination::Group(self.group(group))
    }

    async fn delay(&self, messages: &[Delayed]) {
        let Some(broker) = self.transport.broker_delay() else { return };
        let answers = in_time("answers to a delay", broker.delay(messages)).await;
        assert_eq!(answers.len(), messages.len(), "one answer for each message");
        for answer in answers {
            answer.expect("the broker takes the message");
        }
    }
}

fn delayed(id: &str, delay: Duration, to: Destination) -> Delayed {
    Delayed::new(message(id, TOPIC), delay, to)
}

/// No messages, no answers.
pub async fn nothing_to_delay_is_no_error<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    bus.delay(&[]).await;
}

/// It comes to the group that it is for, though another wants the topic, and it comes as it was.
pub async fn a_delayed_message_comes_to_its_group_alone<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    if !bus.can_delay() {
        return;
    }
    let mut billing = bus.consume("billing", &[TOPIC], 10).await;
    let mut stock = bus.consume("stock", &[TOPIC], 10).await;
    let mut headers = message("1", TOPIC).headers.clone();
    headers.insert_null(names::CALLBACK_NAME);
    headers.insert(names::RETRY, "7:2");
    headers.insert("unicode 🐎", "𝄞 Grüße");
    headers.insert("empty", "");
    let body: Vec<u8> = (0..=255).collect();
    let message_of_all = Arc::new(Message::new(headers.clone(), body.clone()));
    bus.delay(&[Delayed::new(message_of_all, SHORT, bus.to("billing"))]).await;
    let came = accept(&mut billing, 1).await.remove(0);
    assert!(came.delayed, "it says where it comes from");
    assert_eq!(came.body, body);
    for (name, value) in headers.iter() {
        assert!(came.headers.contains(name), "the header {name:?} is missing");
        assert_eq!(came.headers.get(name), value, "{name:?}");
    }
    bus.send_routed(&[message("end", TOPIC)]).await;
    for consumer in [&mut billing, &mut stock] {
        let rest = accept(consumer, 1).await;
        assert_eq!(ids(&rest), ["end"]);
        assert!(!rest[0].delayed, "that one came by the straight way");
    }
}

/// What comes back from a delay and is delivered again is still known for what it is.
pub async fn a_delayed_message_that_is_requeued_is_still_delayed<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    if !bus.can_delay() {
        return;
    }
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    bus.delay(&[delayed("1", SHORT, bus.to("billing"))]).await;
    let taken = super::bus::take(&mut consumer, 1).await;
    acknowledge(&mut consumer, &taken, Acknowledge::Requeue).await;
    let again = accept(&mut consumer, 1).await;
    assert!(again[0].redelivered && again[0].delayed);
    // A second delay of the same message is as good as the first.
    bus.delay(&[delayed("1", SHORT, bus.to("billing"))]).await;
    assert!(accept(&mut consumer, 1).await[0].delayed);
}

/// Whatever waits longer waits behind nobody's back.
pub async fn long_delay_blocks_no_short_one<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    if !bus.can_delay() {
        return;
    }
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    let to = || bus.to("billing");
    bus.delay(&[delayed("long", LONG, to()), delayed("short", SHORT, to())]).await;
    bus.delay(&[delayed("topic long", LONG, Destination::Topic)]).await;
    bus.delay(&[delayed("topic short", SHORT, Destination::Topic)]).await;
    let came = accept(&mut consumer, 2).await;
    assert_eq!(BTreeSet::from_iter(ids(&came)), BTreeSet::from(["short", "topic short"]));
}

/// To whoever wants the topic by then, as if it were sent then; and what nobody wants is in nobody's way.
pub async fn a_topic_delay_reaches_every_group<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    if !bus.can_delay() {
        return;
    }
    let mut billing = bus.consume("billing", &["order.*"], 10).await;
    let mut stock = bus.consume("stock", &[TOPIC], 10).await;
    let mut nobodys = vec![];
    for number in 0..100 {
        let message = message(&format!("nobody's {number}"), "nobody.wants.this");
        nobodys.push(Delayed::new(message, SHORT, Destination::Topic));
    }
    bus.delay(&nobodys).await;
    bus.delay(&[delayed("1", SHORT, Destination::Topic)]).await;
    for consumer in [&mut billing, &mut stock] {
        let came = accept(consumer, 1).await.remove(0);
        assert_eq!((id(&came), came.routing_key.as_str()), ("1", TOPIC));
        assert!(!came.delayed, "it is everyone's, and not this group's own");
    }
}

/// Fleets of two versions share a broker, and what one delays does not reach the other.
pub async fn delays_of_two_versions_do_not_meet<F: TransportFixture>(fixture: &F) {
    let old = Bus::open_version(fixture, "v1").await;
    let new = Bus::open_version(fixture, "v2").await;
    if !old.can_delay() {
        return;
    }
    let mut at_old = old.consume("billing.v1", &[TOPIC], 10).await;
    let mut at_new = new.consume("billing.v2", &[TOPIC], 10).await;
    old.delay(&[delayed("old", SHORT, Destination::Topic)]).await;
    new.delay(&[delayed("new", SHORT, Destination::Topic)]).await;
    assert_eq!(ids(&accept(&mut at_old, 1).await), ["old"]);
    assert_eq!(ids(&accept(&mut at_new, 1).await), ["new"]);
}

/// Headers for operators or for the storage are not sent to a broker; those that name the row are.
pub async fn what_stays_is_not_delayed<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    if !bus.can_delay() {
        return;
    }
    let mut consumer = bus.consume("billing", &[TOPIC], 10).await;
    let stays = [names::EXCEPTION, names::AUDIT, names::BROKER_DELAY];
    let mut headers: Headers = message("1", TOPIC).headers.clone();
    for name in stays {
        headers.insert(name, "password=secret");
    }
    headers.insert(names::RETRY, "7:2");
    let message = Arc::new(Message::new(headers, "{}"));
    for to in [bus.to("billing"), Destination::Topic] {
        bus.delay(&[Delayed::new(Arc::clone(&message), SHORT, to)]).await;
    }
    for came in accept(&mut consumer, 2).await {
        assert!(stays.iter().all(|name| !came.headers.contains(name)), "{:?}", came.headers);
        assert_eq!(came.headers.get(names::RETRY), Some("7:2"));
    }
}

/// Messages wait while the bus is gone, and the reconnected consumer gets them all.
pub async fn an_interruption_loses_nothing_delayed<F: TransportFixture>(fixture: &F) {
    let bus = Bus::open(fixture).await;
    if !bus.can_delay() {
        return;
    }
    drop(bus.consume("billing", &[TOPIC], 4).await);
    let ids: Vec<String> = (1..=6).map(|number| format!("m{number}")).collect();
    let messages: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(at, id)| delayed(id, SHORT, if at % 2 == 0 { bus.to("billing") } else { Destination::Topic }))
        .collect();
    bus.delay(&messages).await;
    if !fixture.interrupt().await {
        return;
    }
    let (mut arrived, mut consumer) = (BTreeSet::new(), None);
    eventually("every message to arrive", async || {
        let Some(current) = &mut consumer else {
            consumer = bus.try_consume("billing", &[TOPIC], 4).await.ok();
            return None;
        };
        match timeout(SHORT, current.receive(10)).await {
            Err(_nothing_yet) => {}
            Ok(Ok(more)) => {
                let _ = current.acknowledge(&tags(&more), Acknowledge::Accept).await;
                arrived.extend(more.iter().map(|incoming: &Incoming| id(incoming).to_owned()));
            }
            Ok(Err(_ended)) => consumer = None,
        }
        (arrived.len() == ids.len()).then_some(())
    })
    .await;
    assert_eq!(arrived, ids.into_iter().collect());
    // And the way there is open again.
    eventually("a delay to succeed again", async || {
        let Some(broker) = bus.transport.broker_delay() else { return Some(()) };
        let answers = broker.delay(&[delayed("after", SHORT, bus.to("billing"))]).await;
        answers.into_iter().all(|answer| answer.is_ok()).then_some(())
    })
    .await;
}
