//! The names and arguments that a bus uses on the broker, and what it found there.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cap_adapter::error::TransportError;
use lapin::Channel;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tokio::time::{Instant, timeout_at};

use crate::connection::link::Link;
use crate::error::{text, unavailable};
use crate::options::QueueType;

/// The time to live of a message in a queue that .NET CAP declared: ten days, in milliseconds.
const DOTNET_MESSAGE_TTL_MS: i32 = 864_000_000;

/// The argument by which a quorum queue says how often a message may be delivered.
pub(crate) const DELIVERY_LIMIT: &str = "x-delivery-limit";

/// The names and arguments that this bus uses.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    pub(crate) exchange: ShortString,
    pub(crate) queue_type: QueueType,
    pub(crate) dotnet_queues: bool,
    pub(crate) message_ttl: Option<Duration>,
    /// A connection that opens no channel for this long is dead.
    pub(crate) silence: Duration,
    /// How the exchange was found.
    pub(crate) found_exchange: FoundExchange,
    /// The queues that are as this bus declares them. Clones share them.
    pub(crate) own_queues: OwnQueues,
}

/// The queues of groups that this bus has declared, or found exactly as it declares them: only cap for Rust consumes them.
/// A queue that is joined as it is may have other consumers.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnQueues(Arc<Mutex<HashSet<ShortString>>>);

impl OwnQueues {
    pub(crate) fn contains(&self, queue: &str) -> bool {
        self.lock().contains(queue)
    }

    pub(crate) fn note(&self, queue: &ShortString, is_own: bool) {
        if is_own {
            self.lock().insert(queue.clone());
        } else {
            self.lock().remove(queue);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<ShortString>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the exchange was found, for all channels of a transport.
#[derive(Debug, Clone, Default)]
pub(crate) struct FoundExchange(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Somebody else declared it, with properties that differ from our declaration.
    as_found: AtomicBool,
    /// That was logged.
    warned: AtomicBool,
}

impl FoundExchange {
    pub(crate) fn as_found(&self) -> bool {
        self.0.as_found.load(Ordering::Relaxed)
    }

    pub(crate) fn set_as_found(&self, as_found: bool) {
        self.0.as_found.store(as_found, Ordering::Relaxed);
    }

    /// `true` the first time: a transport opens many channels and warns once.
    pub(crate) fn warns(&self) -> bool {
        !self.0.warned.swap(true, Ordering::Relaxed)
    }
}

impl Topology {
    /// The arguments of a queue that does not exist yet.
    pub(crate) fn queue_arguments(&self, limits_deliveries: bool) -> FieldTable {
        let mut arguments = FieldTable::default();
        if self.dotnet_queues {
            arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(DOTNET_MESSAGE_TTL_MS));
            return arguments;
        }
        let kind = match self.queue_type {
            QueueType::Quorum => "quorum",
            // Always named, because a vhost may have another kind as its default.
            QueueType::Classic => "classic",
        };
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        if limits_deliveries && self.queue_type == QueueType::Quorum {
            // Otherwise the broker drops a message for good at its twentieth redelivery, for example during an outage of
            // the storage. The bus itself counts the messages that fail.
            arguments.insert(DELIVERY_LIMIT.into(), AMQPValue::LongInt(-1));
        }
        if let Some(ttl) = self.message_ttl {
            let milliseconds = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(milliseconds));
        }
        arguments
    }

    /// Opens a channel. A connection that cannot do that in time is dead and is cut, unless little time was left: then a
    /// queue that does not answer has used it up, and the other groups keep the connection. A connection that refuses has
    /// no number left for another channel, and is retired.
    pub(crate) async fn new_channel(
        &self,
        link: &Link,
        deadline: Instant,
    ) -> Result<Channel, TransportError> {
        let asked = Instant::now();
        match timeout_at(deadline, link.connection().create_channel()).await {
            Ok(Ok(channel)) => {
                link.note(&channel);
                Ok(channel)
            }
            Ok(Err(error)) => {
                link.retire();
                Err(unavailable(format!(
                    "the connection has no number left for another channel, the next call connects again: {}",
                    text(&error)
                )))
            }
            Err(_) => {
                if asked.elapsed() >= self.silence {
                    link.cut();
                }
                Err(unavailable("the broker did not open a channel within confirm_timeout"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(queue_type: QueueType) -> Topology {
        Topology {
            exchange: "x".into(),
            queue_type,
            dotnet_queues: false,
            message_ttl: None,
            silence: Duration::ZERO,
            found_exchange: FoundExchange::default(),
            own_queues: OwnQueues::default(),
        }
    }

    #[test]
    fn dotnet_queue_has_one_argument_only() {
        let topology = Topology {
            dotnet_queues: true,
            message_ttl: Some(Duration::from_secs(1)),
            ..topology(QueueType::Quorum)
        };
        let arguments = topology.queue_arguments(true);
        assert_eq!(arguments.inner().len(), 1);
        assert_eq!(arguments.inner().get("x-message-ttl"), Some(&AMQPValue::LongInt(864_000_000)));
    }

    #[test]
    fn queue_has_its_kind_and_no_time_to_live_by_default() {
        for (queue_type, name) in [(QueueType::Quorum, "quorum"), (QueueType::Classic, "classic")] {
            let arguments = topology(queue_type).queue_arguments(false);
            assert_eq!(arguments.inner().len(), 1);
            assert_eq!(arguments.inner().get("x-queue-type"), Some(&AMQPValue::LongString(name.into())));
        }
    }

    #[test]
    fn only_quorum_queues_turn_the_delivery_limit_off() {
        for (queue_type, limits, expected) in [
            (QueueType::Quorum, true, Some(&AMQPValue::LongInt(-1))),
            (QueueType::Quorum, false, None),
            (QueueType::Classic, true, None),
        ] {
            let arguments = topology(queue_type).queue_arguments(limits);
            assert_eq!(arguments.inner().get("x-delivery-limit"), expected);
        }
    }
}
