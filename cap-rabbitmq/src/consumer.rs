//! A group's messages: taken from the broker as they come, settled with as few strokes as possible.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cap_adapter::error::TransportError;
use cap_adapter::transport::{Acknowledge, Consumer, GroupSpec, Incoming, Tag};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::acks::{Outstanding, Settlement};
use crate::connection::{Connector, Link, before};
use crate::error::{text, unavailable};
use crate::headers::{incoming_headers, incoming_properties, was_delayed};
use crate::topology::{Topology, group_error};

/// The consumer of one group, on a channel of its own. Made by [`RabbitMq`](crate::RabbitMq) for the bus.
///
/// Dropping it closes the channel; the broker then delivers again what was not settled.
pub struct RabbitMqConsumer {
    queue: ShortString,
    deliveries: lapin::Consumer,
    channel: Channel,
    /// Kept so that the connection outlives the channel.
    _link: Arc<Link>,
    outstanding: Outstanding,
    /// Why there will be no more messages. lapin says so once and is silent ever after.
    ended: Option<TransportError>,
    settle_timeout: Duration,
}

impl RabbitMqConsumer {
    /// Declares what the group needs and starts to consume.
    pub(crate) async fn start(
        connector: &Connector,
        topology: &Topology,
        spec: &GroupSpec,
        limit: Duration,
    ) -> Result<Self, TransportError> {
        let deadline = Instant::now() + limit;
        let link = before(deadline, "connecting", connector.link()).await?;
        let what = format!("declaring and consuming group {:?}", spec.group);
        let start = async {
            let (channel, queue) = topology.group(&link, spec, deadline).await?;
            let deliveries = subscribe(&channel, &queue, spec.prefetch).await?;
            Ok((channel, queue, deliveries))
        };
        let (channel, queue, deliveries) = before(deadline, &what, start).await?;
        Ok(Self {
            queue,
            deliveries,
            channel,
            _link: link,
            outstanding: Outstanding::default(),
            ended: None,
            settle_timeout: limit,
        })
    }

    fn take(&mut self, delivery: Delivery) -> Incoming {
        self.outstanding.add(delivery.delivery_tag);
        Incoming {
            tag: delivery.delivery_tag,
            routing_key: delivery.routing_key.into(),
            headers: incoming_headers(&delivery.properties),
            properties: incoming_properties(&delivery.properties, &delivery.exchange),
            body: Bytes::from(delivery.data),
            redelivered: delivery.redelivered,
            delayed: was_delayed(&delivery.properties, self.queue.as_str()),
        }
    }

    /// Notes what lapin said instead of a message.
    fn end(&mut self, last: Option<lapin::Error>) -> TransportError {
        let queue = self.queue.as_str();
        let error = match last {
            Some(error) => unavailable(format!("consuming queue {queue:?} ended: {}", text(&error))),
            None => unavailable(format!(
                "the broker ended the consumer of queue {queue:?}: the queue was deleted or its node went away"
            )),
        };
        self.ended.insert(error).clone()
    }

    async fn write(&self, settlement: Settlement, how: Acknowledge) -> lapin::Result<()> {
        let Settlement { tag, multiple } = settlement;
        match how {
            Acknowledge::Accept => self.channel.basic_ack(tag, BasicAckOptions { multiple }).await,
            Acknowledge::Requeue => {
                self.channel.basic_nack(tag, BasicNackOptions { multiple, requeue: true }).await
            }
        }
    }
}

async fn subscribe(
    channel: &Channel,
    queue: &ShortString,
    prefetch: u16,
) -> Result<lapin::Consumer, TransportError> {
    // To the broker 0 means "no limit", and lapin would hold them all in memory.
    let prefetch = prefetch.max(1);
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await
        .map_err(|error| group_error(queue, "given a prefetch limit", &error))?;
    channel
        .basic_consume(queue.clone(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .map_err(|error| group_error(queue, "consumed", &error))
}

impl Consumer for RabbitMqConsumer {
    async fn receive(&mut self, limit: usize) -> Result<Vec<Incoming>, TransportError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        // The only wait. A message leaves lapin's queue when this is ready, and from there on nothing is awaited,
        // so a call that is dropped takes none with it.
        let mut next = self.deliveries.next().await;
        let mut received = Vec::new();
        loop {
            match next {
                Some(Ok(delivery)) => received.push(self.take(delivery)),
                ended => {
                    let error = self.end(ended.and_then(Result::err));
                    return if received.is_empty() { Err(error) } else { Ok(received) };
                }
            }
            if received.len() >= limit {
                return Ok(received);
            }
            match self.deliveries.next().now_or_never() {
                Some(more) => next = more,
                None => return Ok(received),
            }
        }
    }

    async fn settle(&mut self, tags: &[Tag], how: Acknowledge) -> Result<(), TransportError> {
        // Written in this order, which the first poll of all of them sees to: a stroke over several comes first.
        let settlements = self.outstanding.settle(tags);
        let this = &*self;
        let writes = join_all(settlements.into_iter().map(|settlement| this.write(settlement, how)));
        let Ok(results) = timeout(this.settle_timeout, writes).await else {
            let limit = this.settle_timeout;
            return Err(unavailable(format!(
                "acknowledgements for queue {:?} could not be written within {limit:?}",
                this.queue.as_str()
            )));
        };
        // A channel that is gone is no error here: the broker delivers again, and `receive` tells of the end.
        if let Some(error) = results.into_iter().find_map(Result::err) {
            debug!(queue = %this.queue, error = text(&error), "not acknowledged; will be delivered again");
        }
        Ok(())
    }
}

impl fmt::Debug for RabbitMqConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqConsumer")
            .field("queue", &self.queue.as_str())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
