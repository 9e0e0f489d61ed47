//! The queues in which messages wait: their names and arguments, as a pure function of where a message goes, for how
//! long it waits, and the day.
//!
//! A message waits in a queue without consumers until the queue's time to live is over; the broker then dead-letters it
//! to where it goes. Everything in a queue waits equally long, so nothing waits behind something longer.
//!
//! # Why a day is part of the name
//!
//! A queue that is not needed any more must vanish, which `x-expires` sees to. But on a quorum queue neither a
//! declaration nor a publish counts as use: it is deleted that long after it was made, with all that waits in it. So a
//! queue takes messages for one day (of UTC) only, and is made to outlive the last of them:
//!
//! ```text
//! made          at the earliest   start of its day - SKEW        by the clock of a node that is ahead
//! last message  at the latest     end of its day + SKEW          by the clock of a node that is behind
//! leaves        at the latest     end of its day + SKEW + ttl
//! x-expires     = DAY + ttl + GRACE,  where GRACE = DAY = 2 SKEW + what is left
//! ```
//!
//! With clocks that differ by less than an hour, 22 hours are left for what cannot leave in time: since the queue it
//! goes to is not there, or the broker is busy. At any time there are at most three queues for one delay to one
//! group, if it is short: today's, and those of the two days before.

use std::time::{Duration, SystemTime};

use cap_adapter::error::TransportError;
use cap_adapter::transport::Destination;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::error::refused;

/// For how long a queue takes messages.
const DAY: Duration = Duration::from_hours(24);
/// For how long a queue outlives the last message that can be in it.
const GRACE: Duration = DAY;
/// The broker's limit for `x-expires`, a little over 49 days, less the time in which a queue takes messages and its
/// grace.
pub(crate) const LONGEST_DELAY: Duration =
    Duration::from_millis(u32::MAX as u64).saturating_sub(DAY).saturating_sub(GRACE);

const TO_QUEUE: &str = "cap.delay.queue.";
const TO_EXCHANGE: &str = "cap.delay.exchange.";
const EXIT: &str = "cap.delay.exit.";
/// What is left of 255 bytes beside the longest prefix, the milliseconds, the day and the dots between them.
const LONGEST_LABEL: usize = 200;

/// A queue in which messages wait equally long for the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DelayQueue {
    /// Of the queue, and of the fanout exchange before it if it goes to an exchange.
    pub(crate) name: ShortString,
    pub(crate) exit: Exit,
    milliseconds: u64,
}

/// Where messages go from a delay queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// To this queue, whatever their routing key was.
    Queue(ShortString),
    /// To this exchange, with the routing key that they came with.
    Exchange(ShortString),
}

impl DelayQueue {
    /// The queue for a message that is delayed now.
    ///
    /// # Errors
    ///
    /// Refused, when the delay is too long or the group's name is.
    pub(crate) fn new(
        exchange: &ShortString,
        to: &Destination,
        delay: Duration,
        now: SystemTime,
    ) -> Result<Self, TransportError> {
        let milliseconds = whole_milliseconds(delay)?;
        let (prefix, label, exit) = match to {
            Destination::Group(group) => {
                let queue = ShortString::try_new(&**group).map_err(|_| {
                    refused(format!("group {group:?} is longer than the 255 bytes of a queue name"))
                })?;
                (TO_QUEUE, label(group), Exit::Queue(queue))
            }
            Destination::Topic => (
                TO_EXCHANGE,
                label(exchange.as_str()),
                Exit::Exchange(short(EXIT, &label(exchange.as_str()))?),
            ),
        };
        let day = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / DAY.as_secs();
        let name = short(prefix, &format!("{label}.{milliseconds}.{day}"))?;
        Ok(Self { name, exit, milliseconds })
    }

    /// The arguments of the queue. At least once: the broker keeps a message until the queue that it goes to has
    /// confirmed it, which only quorum queues do, and only if they reject what they have no room for.
    pub(crate) fn arguments(&self) -> FieldTable {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let milliseconds = |value: u64| AMQPValue::LongLongInt(i64::try_from(value).unwrap_or(i64::MAX));
        let lifetime = u64::try_from((DAY + GRACE).as_millis()).unwrap_or(u64::MAX);
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        arguments.insert("x-message-ttl".into(), milliseconds(self.milliseconds));
        arguments.insert("x-expires".into(), milliseconds(lifetime.saturating_add(self.milliseconds)));
        arguments.insert("x-overflow".into(), text("reject-publish"));
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        match &self.exit {
            Exit::Queue(queue) => {
                arguments.insert("x-dead-letter-exchange".into(), text(""));
                arguments.insert("x-dead-letter-routing-key".into(), text(queue.as_str()));
            }
            Exit::Exchange(exchange) => {
                arguments.insert("x-dead-letter-exchange".into(), text(exchange.as_str()));
            }
        }
        arguments
    }

    /// The exchange and the routing key to publish with; no key stands for the message's topic.
    pub(crate) fn entrance(&self) -> (ShortString, Option<ShortString>) {
        match self.exit {
            Exit::Queue(_) => ("".into(), Some(self.name.clone())),
            Exit::Exchange(_) => (self.name.clone(), None),
        }
    }
}

/// Whether a queue is one in which messages for this group wait.
pub(crate) fn delays_for(group: &str, queue: &str) -> bool {
    let numbers = |text: &str| {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        text.split_once('.').is_some_and(|(milliseconds, day)| is_number(milliseconds) && is_number(day))
    };
    let rest = queue.strip_prefix(TO_QUEUE).and_then(|rest| rest.strip_prefix(&*label(group)));
    rest.and_then(|rest| rest.strip_prefix('.')).is_some_and(numbers)
}

/// Rounded up, and at least 1: with a time to live of 0 a message expires unless a consumer takes it at once.
fn whole_milliseconds(delay: Duration) -> Result<u64, TransportError> {
    if delay > LONGEST_DELAY {
        return Err(refused(format!(
            "a delay of {delay:?} is longer than RabbitMQ keeps a message here, which is {} days",
            LONGEST_DELAY.as_secs() / DAY.as_secs()
        )));
    }
    let milliseconds = delay.as_nanos().div_ceil(1_000_000).max(1);
    Ok(u64::try_from(milliseconds).unwrap_or(u64::MAX))
}

fn short(prefix: &str, rest: &str) -> Result<ShortString, TransportError> {
    ShortString::try_new(format!("{prefix}{rest}"))
        .map_err(|_| refused(format!("{rest:?} is too long for a part of a queue's name")))
}

/// A name as it stands in the name of a delay queue: itself, or its beginning and a hash if it is too long.
fn label(name: &str) -> String {
    if name.len() <= LONGEST_LABEL {
        return name.to_owned();
    }
    let hash = format!("~{:016x}", fnv1a(name.as_bytes()));
    let end = (0..=LONGEST_LABEL - hash.len()).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{hash}", &name[..end])
}

/// A hash that is the same in every version of every program.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, delay: Duration, now: SystemTime) -> Result<DelayQueue, TransportError> {
        DelayQueue::new(&"x".into(), &Destination::Group(name.into()), delay, now)
    }

    fn day(number: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * number
    }

    #[test]
    fn whatever_differs_has_another_name() {
        let second = Duration::from_secs(1);
        let one = group("shop.v1", second, day(20_000)).unwrap();
        assert_eq!(one.name.as_str(), "cap.delay.queue.shop.v1.1000.20000");
        assert_eq!(group("shop.v1", second, day(20_001) - second).unwrap(), one);
        let topic = DelayQueue::new(&"shop.v1".into(), &Destination::Topic, second, day(20_000)).unwrap();
        assert_eq!(topic.name.as_str(), "cap.delay.exchange.shop.v1.1000.20000");
        assert_eq!(topic.exit, Exit::Exchange("cap.delay.exit.shop.v1".into()));
        for other in [
            topic,
            group("shop.v2", second, day(20_000)).unwrap(),
            group("shop.v1", second * 2, day(20_000)).unwrap(),
            group("shop.v1", second, day(20_001)).unwrap(),
        ] {
            assert_ne!(other.name, one.name);
        }
    }

    #[test]
    fn a_queue_outlives_all_that_can_wait_in_it() {
        let number = |table: &FieldTable, name: &str| match table.inner().get(name) {
            Some(AMQPValue::LongLongInt(number)) => *number,
            other => panic!("{name} is {other:?}"),
        };
        for delay in [Duration::from_millis(1), Duration::from_secs(600), LONGEST_DELAY] {
            let arguments = group("g", delay, day(1)).unwrap().arguments();
            let (ttl, expires) = (number(&arguments, "x-message-ttl"), number(&arguments, "x-expires"));
            assert_eq!(ttl, i64::try_from(delay.as_millis()).unwrap());
            assert_eq!(expires, 2 * 86_400_000 + ttl);
            assert!(expires <= i64::from(u32::MAX), "more than the broker takes");
        }
    }

    #[test]
    fn delays_are_rounded_up_and_bounded() {
        let name = |delay| group("g", delay, day(1)).map(|queue| queue.name.as_str().to_owned());
        assert_eq!(name(Duration::ZERO).unwrap(), "cap.delay.queue.g.1.1");
        assert_eq!(name(Duration::from_nanos(1_000_001)).unwrap(), "cap.delay.queue.g.2.1");
        assert!(name(LONGEST_DELAY).is_ok());
        let error = name(LONGEST_DELAY + Duration::from_nanos(1)).unwrap_err();
        assert_eq!(error.kind(), cap_adapter::error::TransportErrorKind::Refused);
        assert!(error.to_string().contains("47 days"), "{error}");
    }

    #[test]
    fn long_groups_have_short_names_of_their_own() {
        let (a, b) = ("ü".repeat(127), format!("{}x", "ü".repeat(126)));
        let queue = |name: &str| group(name, LONGEST_DELAY, day(999_999)).unwrap().name;
        assert_ne!(queue(&a), queue(&b));
        assert!(queue(&a).as_str().len() <= 255);
        assert!(delays_for(&a, queue(&a).as_str()) && !delays_for(&a, queue(&b).as_str()));
        assert!(group(&"x".repeat(256), DAY, day(1)).is_err());
    }

    #[test]
    fn only_the_queues_of_the_very_group_count() {
        for (group, queue, expected) in [
            ("g", "cap.delay.queue.g.1000.20000", true),
            ("g", "cap.delay.queue.g.h.1000.20000", false),
            ("g.h", "cap.delay.queue.g.h.1000.20000", true),
            ("g", "cap.delay.queue.g.1000", false),
            ("g", "cap.delay.queue.g.1000.", false),
            ("g", "cap.delay.queue.gh.1000.20000", false),
            ("g", "cap.delay.exchange.g.1000.20000", false),
            ("g", "g", false),
        ] {
            assert_eq!(delays_for(group, queue), expected, "{group} {queue}");
        }
        // A group whose name ends in a number is no other group's delay.
        assert!(!delays_for("g", "cap.delay.queue.g.5.1000.20000"));
    }
}
