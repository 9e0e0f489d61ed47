//! Follows topics on a queue that exists only meanwhile.

use std::fmt;
use std::sync::Arc;

use cap_adapter::error::TransportError;
use cap_adapter::message::TopicPattern;
use cap_adapter::transport::Incoming;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::ExchangeKind;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tokio::time::Instant;

use crate::connection::deadline::before;
use crate::connection::link::Link;
use crate::consume::body::body;
use crate::consume::incoming_headers::{incoming_headers, incoming_properties};
use crate::error::{refused, text, unavailable};
use crate::transport::RabbitMq;

/// The most messages that are on their way to a follower.
const PREFETCH: u16 = 100;
/// The most bytes that the queue of a follower keeps.
const QUEUE_BYTES: i64 = 64 * 1024 * 1024;

/// Copies of the messages of some topics, from a queue of its own that the broker deletes when this is dropped, at the
/// latest with the connection. No group loses a message by it. Made by [`RabbitMq::follow`].
pub struct Follower {
    deliveries: lapin::Consumer,
    channel: Channel,
    /// Kept so that the connection outlives the channel.
    _link: Arc<Link>,
}

impl RabbitMq {
    /// Follows topics: returns copies of the messages that are published from now on. They come from a queue of its own,
    /// which is exclusive to this connection and auto-deleted, and keeps at most `capacity` messages and 64 MiB: if they are
    /// not taken fast enough, the broker drops the oldest. Nothing else is declared.
    ///
    /// The transport must have been [started](cap_adapter::transport::Transport::start).
    ///
    /// # Errors
    ///
    /// A broker that is unreachable, an exchange that does not exist, or a user without the right to configure, write and
    /// read queues with generated names (`amq.gen-*`) and to read from the exchange.
    pub async fn follow(&self, topics: &[TopicPattern], capacity: u32) -> Result<Follower, TransportError> {
        let started = self.started()?;
        let deadline = Instant::now() + self.options().confirm_timeout;
        let link = before(deadline, "connecting", started.consumers.link()).await?;
        let exchange = started.topology.exchange.clone();
        let declared = async {
            let channel = started.topology.new_channel(&link, deadline).await?;
            let failed = |error: lapin::Error| follow_error(&exchange, &error);
            let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            let found = channel.exchange_declare(
                exchange.clone(),
                ExchangeKind::Topic,
                passive,
                FieldTable::default(),
            );
            link.expected_closes().during(&channel, found).await.map_err(failed)?;
            let queue = declare(&channel, capacity).await.map_err(failed)?;
            try_join_all(topics.iter().map(|topic| bind(&channel, &queue, &exchange, topic))).await?;
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(failed)?;
            let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
            let deliveries =
                channel.basic_consume(queue, "".into(), options, arguments).await.map_err(failed)?;
            Ok((channel, deliveries))
        };
        let (channel, deliveries) = before(deadline, "declaring the queue of a follower", declared).await?;
        Ok(Follower { deliveries, channel, _link: link })
    }
}

impl Follower {
    /// The next message. Cancel safe: a message that was not returned is returned by the next call.
    ///
    /// # Errors
    ///
    /// The connection, and the queue with it, has ended: follow again.
    pub async fn next(&mut self) -> Result<Incoming, TransportError> {
        let delivery = match self.deliveries.next().await {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return Err(unavailable(format!("following ended: {}", text(&error)))),
            None => return Err(unavailable("following ended: the broker ended the consumer")),
        };
        let acknowledge = self.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default());
        // The frame is written without waiting for the broker. If it is lost, so are the queue and its messages.
        let acknowledged = acknowledge.await;
        let headers = incoming_headers(&delivery.properties);
        let mut incoming =
            Incoming::new(delivery.delivery_tag, delivery.routing_key, headers, body(delivery.data));
        incoming.properties = incoming_properties(&delivery.properties, &delivery.exchange);
        incoming.redelivered = delivery.redelivered;
        drop(acknowledged);
        Ok(incoming)
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("queue", &self.deliveries.queue().as_str()).finish_non_exhaustive()
    }
}

async fn declare(channel: &Channel, capacity: u32) -> lapin::Result<ShortString> {
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    // A vhost may have another kind as its default, which cannot be exclusive.
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(i64::from(capacity.max(1))));
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(QUEUE_BYTES));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    Ok(channel.queue_declare("".into(), options, arguments).await?.name().clone())
}

async fn bind(
    channel: &Channel,
    queue: &ShortString,
    exchange: &ShortString,
    topic: &TopicPattern,
) -> Result<(), TransportError> {
    let key = ShortString::try_new(topic.as_str())
        .map_err(|_| refused(format!("topic {topic} is longer than the 255 bytes of a routing key")))?;
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    let bound = channel.queue_bind(queue.clone(), exchange.clone(), key, options, arguments);
    bound.await.map_err(|error| follow_error(exchange, &error))
}

fn follow_error(exchange: &ShortString, error: &lapin::Error) -> TransportError {
    use lapin::protocol::AMQPSoftError::{ACCESSREFUSED, NOTFOUND};
    let (exchange, said) = (exchange.as_str(), text(error));
    match crate::error::soft(error) {
        Some(NOTFOUND) => refused(format!(
            "exchange {exchange:?} does not exist in this vhost: check the vhost, the exchange and the version: {said}"
        )),
        Some(ACCESSREFUSED) => refused(format!(
            "this user may not follow exchange {exchange:?}: grant the rights to configure, write and read amq.gen-* and \
             to read the exchange: {said}"
        )),
        _ => unavailable(format!("exchange {exchange:?} could not be followed: {said}")),
    }
}
