//! What is declared on the broker for a group: its queue with its bindings.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cap_adapter::error::TransportError;
use cap_adapter::message::TopicPattern;
use cap_adapter::transport::GroupSpec;
use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::connection::Link;
use crate::error::{inequivalent, refused, soft, text, unavailable};
use crate::exchange::Joined;
use crate::options::QueueType;

/// The time to live of a message in a queue that .NET CAP declared: ten days, in milliseconds.
const DOTNET_MESSAGE_TTL_MS: i32 = 864_000_000;

const DELIVERY_LIMIT: &str = "x-delivery-limit";

/// The names and arguments that this bus uses.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    pub(crate) exchange: ShortString,
    pub(crate) queue_type: QueueType,
    pub(crate) dotnet_queues: bool,
    pub(crate) message_ttl: Option<Duration>,
    /// A connection that opens no channel for so long is dead.
    pub(crate) silence: Duration,
    /// How the exchange was found.
    pub(crate) joined: Joined,
    /// The queues that are as this bus declares them. Clones share them.
    pub(crate) own_queues: OwnQueues,
}

/// The queues of groups that this bus has declared, or found to be just as it declares them: all that consumes them is cap
/// for Rust. One that is joined as it is may be somebody else's.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnQueues(Arc<Mutex<HashSet<ShortString>>>);

impl OwnQueues {
    pub(crate) fn contains(&self, queue: &str) -> bool {
        self.lock().contains(queue)
    }

    fn note(&self, queue: &ShortString, is_own: bool) {
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

impl Topology {
    /// The arguments of a queue that does not exist yet.
    fn queue_arguments(&self, limits_deliveries: bool) -> FieldTable {
        let mut arguments = FieldTable::default();
        if self.dotnet_queues {
            arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(DOTNET_MESSAGE_TTL_MS));
            return arguments;
        }
        let kind = match self.queue_type {
            QueueType::Quorum => "quorum",
            // Said outright: a vhost may have another kind as its default.
            QueueType::Classic => "classic",
        };
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        if limits_deliveries && self.queue_type == QueueType::Quorum {
            // Otherwise the broker drops a message for good at its twentieth redelivery, such as during an outage of
            // the store. Messages that fail for their own sake are the bus's to count.
            arguments.insert(DELIVERY_LIMIT.into(), AMQPValue::LongInt(-1));
        }
        if let Some(ttl) = self.message_ttl {
            let milliseconds = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(milliseconds));
        }
        arguments
    }

    /// A fresh channel on which the group's queue is known to be there, as the group wants it.
    pub(crate) async fn group(
        &self,
        link: &Link,
        spec: &GroupSpec,
        deadline: Instant,
    ) -> Result<(Channel, ShortString), TransportError> {
        let queue = ShortString::try_new(&*spec.group).map_err(|_| {
            refused(format!("group {:?} is longer than the 255 bytes of a queue name", spec.group))
        })?;
        if !spec.existing {
            let channel = self.open_channel(link, deadline).await?;
            return Ok((self.declare_group(link, channel, &queue, spec, deadline).await?, queue));
        }
        if !self.exists(link, &queue, deadline).await? {
            return Err(unavailable(format!(
                "queue {queue:?} is not there; it is somebody else's to declare, and is looked for again",
                queue = queue.as_str()
            )));
        }
        self.refuse_a_stream(link, &queue, None, deadline).await?;
        Ok((self.new_channel(link, deadline).await?, queue))
    }

    /// Sees to it that the group's queue is there and bound to each of its topics. Bindings are only added.
    async fn declare_group(
        &self,
        link: &Link,
        mut channel: Channel,
        queue: &ShortString,
        spec: &GroupSpec,
        deadline: Instant,
    ) -> Result<Channel, TransportError> {
        // Declared first, asked later: a queue of our own making is the usual case, and needs no second channel.
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let arguments = self.queue_arguments(link.limits_deliveries());
        let declared = channel.queue_declare(queue.clone(), options, arguments);
        let declared = link.expected_closes().during(&channel, declared).await;
        self.own_queues.note(queue, declared.is_ok());
        if let Err(error) = declared {
            self.join_as_it_is(link, queue, &error, deadline).await?;
            channel = self.new_channel(link, deadline).await?;
        }
        // All at once: one after another, many topics over a slow link would never be done in time.
        try_join_all(spec.topics.iter().map(|topic| self.bind(&channel, queue, topic))).await?;
        Ok(channel)
    }

    /// Joins a queue that exists and was declared otherwise, or that this user may not declare.
    async fn join_as_it_is(
        &self,
        link: &Link,
        queue: &ShortString,
        error: &lapin::Error,
        deadline: Instant,
    ) -> Result<(), TransportError> {
        let may_exist =
            matches!(soft(error), Some(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::ACCESSREFUSED));
        // Where it does not exist, its declaration was refused for its own sake.
        if !may_exist || !self.exists(link, queue, deadline).await? {
            return Err(group_error(queue, "declared", error));
        }
        let said = text(error);
        if inequivalent(&said) == Some(DELIVERY_LIMIT) {
            warn_of_delivery_limit(queue);
        }
        self.refuse_a_stream(link, queue, Some(error), deadline).await
    }

    async fn bind(
        &self,
        channel: &Channel,
        queue: &ShortString,
        topic: &TopicPattern,
    ) -> Result<(), TransportError> {
        let key = ShortString::try_new(topic.as_str())
            .map_err(|_| refused(format!("topic {topic} is longer than the 255 bytes of a routing key")))?;
        let (exchange, options) = (self.exchange.clone(), QueueBindOptions::default());
        channel
            .queue_bind(queue.clone(), exchange, key, options, FieldTable::default())
            .await
            .map_err(|error| group_error(queue, &format!("bound to topic {topic}"), &error))
    }

    /// Whether a queue is there, whatever its arguments. Asked on a channel of its own, which a "no" closes.
    async fn exists(
        &self,
        link: &Link,
        queue: &ShortString,
        deadline: Instant,
    ) -> Result<bool, TransportError> {
        let channel = self.new_channel(link, deadline).await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = channel.queue_declare(queue.clone(), options, FieldTable::default());
        match link.expected_closes().during(&channel, asked).await {
            Ok(_) => Ok(true),
            Err(error) if soft(&error) == Some(&AMQPSoftError::NOTFOUND) => Ok(false),
            Err(error) => Err(group_error(queue, "looked up", &error)),
        }
    }

    /// Opens a channel. A connection that does not even do that in time is dead, whatever it says of itself. That takes
    /// time enough: where a queue that does not answer has used most of it up, that queue is at fault, and the other
    /// groups keep the connection. One that says no has no room for another channel, and is retired.
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
                    "this connection opens no more channels, and the next call makes another: {}",
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

/// Warns of a queue whose messages the broker drops when it has delivered them often: one that was declared when the
/// broker was older and had no such limit. A broker tells the arguments of a queue only by refusing others.
fn warn_of_delivery_limit(queue: &ShortString) {
    warn!(
        queue = queue.as_str(),
        advice = "it has no x-delivery-limit -1: set a policy with delivery-limit -1, or delete it when it is empty",
        "broker drops messages of this queue after 20 deliveries, as in a long outage of the storage"
    );
}

/// The error of a declaration or a subscription that did not come about.
pub(crate) fn group_error(queue: &ShortString, what: &str, error: &lapin::Error) -> TransportError {
    let (queue, said) = (queue.as_str(), text(error));
    match soft(error) {
        Some(AMQPSoftError::PRECONDITIONFAILED) => refused(format!(
            "queue {queue:?} could not be {what}, since its properties conflict with this bus's; delete the queue \
             when it is empty, or change queue_type, dotnet_queues or message_ttl: {said}"
        )),
        Some(AMQPSoftError::ACCESSREFUSED) => refused(format!(
            "queue {queue:?} could not be {what}: this user lacks the right to configure, write or read it: {said}"
        )),
        Some(AMQPSoftError::RESOURCELOCKED) => refused(format!(
            "queue {queue:?} could not be {what}: another connection holds it exclusively: {said}"
        )),
        _ => unavailable(format!("queue {queue:?} could not be {what}: {said}")),
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
            joined: Joined::default(),
            own_queues: OwnQueues::default(),
        }
    }

    #[test]
    fn a_dotnet_queue_has_one_argument_only() {
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
    fn a_queue_has_its_kind_and_no_time_to_live_of_itself() {
        for (queue_type, name) in [(QueueType::Quorum, "quorum"), (QueueType::Classic, "classic")] {
            let arguments = topology(queue_type).queue_arguments(false);
            assert_eq!(arguments.inner().len(), 1);
            assert_eq!(arguments.inner().get("x-queue-type"), Some(&AMQPValue::LongString(name.into())));
        }
    }

    #[test]
    fn only_a_quorum_queue_of_a_broker_that_limits_deliveries_is_told_not_to() {
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
