//! The queue of a group: declared and bound, or joined as it is.

use cap_adapter::error::TransportError;
use cap_adapter::message::TopicPattern;
use cap_adapter::transport::GroupSpec;
use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{FieldTable, ShortString};
use tokio::time::Instant;
use tracing::warn;

use crate::connection::link::Link;
use crate::declare::topology::{DELIVERY_LIMIT, Topology};
use crate::error::{inequivalent, refused, soft, text, unavailable};

impl Topology {
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
                "queue {queue:?} is not there; the bus does not declare it, and checks again later",
                queue = queue.as_str()
            )));
        }
        self.refuse_a_stream(link, &queue, None, deadline).await?;
        Ok((self.new_channel(link, deadline).await?, queue))
    }

    /// Declares the group's queue, or joins it, and binds it to each of its topics. Bindings are only added.
    async fn declare_group(
        &self,
        link: &Link,
        mut channel: Channel,
        queue: &ShortString,
        spec: &GroupSpec,
        deadline: Instant,
    ) -> Result<Channel, TransportError> {
        // Declared first, asked later: usually the queue is our own, which needs no second channel.
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let arguments = self.queue_arguments(link.limits_deliveries());
        let declared = channel.queue_declare(queue.clone(), options, arguments);
        let declared = link.expected_closes().during(&channel, declared).await;
        self.own_queues.note(queue, declared.is_ok());
        if let Err(error) = declared {
            self.join_as_it_is(link, queue, &error, deadline).await?;
            channel = self.new_channel(link, deadline).await?;
        }
        // All at once: over a slow network, many topics one after another would not be done in time.
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
        // If it does not exist, the broker rejected the declaration itself.
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

    /// Whether a queue exists, with any arguments. Asked on a channel of its own, which the broker closes if it does not.
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
}

/// Warns of a queue whose messages the broker drops after many deliveries: one that was declared by an older version of the
/// broker, which had no such limit. A broker reveals the arguments of a queue only by rejecting others.
fn warn_of_delivery_limit(queue: &ShortString) {
    warn!(
        queue = queue.as_str(),
        advice = "it has no x-delivery-limit -1: set a policy with delivery-limit -1, or delete it when it is empty",
        "broker drops messages of this queue after 20 deliveries, as in a long outage of the storage"
    );
}

/// The error of a declaration or a subscription that failed.
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
