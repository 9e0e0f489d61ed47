//! The consumer of a group: receives messages, and acknowledges them with as few frames as possible.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cap_adapter::error::TransportError;
use cap_adapter::transport::{Acknowledge, Consumer, GroupSpec, Incoming, Tag};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::connection::connector::Connector;
use crate::connection::deadline::before;
use crate::connection::link::Link;
use crate::consume::acknowledgements::{Acknowledgement, Outstanding};
use crate::consume::incoming_headers::{incoming_headers, incoming_properties, was_delayed};
use crate::consume::prefetch_window::PrefetchWindow;
use crate::declare::group_queue::group_error;
use crate::declare::topology::Topology;
use crate::error::{text, unavailable};

/// The consumer of one group, on a channel of its own. Made by [`RabbitMq`](crate::RabbitMq) for the bus.
///
/// Dropping it closes the channel; the broker then delivers again what was not acknowledged.
pub struct RabbitMqConsumer {
    queue: ShortString,
    deliveries: lapin::Consumer,
    channel: Channel,
    /// Kept so that the connection outlives the channel.
    _link: Arc<Link>,
    outstanding: Outstanding,
    /// Messages that lapin gave and that are not handed out yet, by their tags.
    fetched: VecDeque<Incoming>,
    window: PrefetchWindow,
    /// Of the present subscription, or of the one that replaces it.
    prefetch: u16,
    /// The last message that was handed out before the present subscription stood.
    before: Tag,
    /// The subscription with another window that replaces the present one. Until it stands nothing is taken from either, so
    /// that messages stay in order.
    changing: Option<AbortOnDropHandle<Result<lapin::Consumer, TransportError>>>,
    /// Why there will be no more messages. lapin reports it once only.
    ended: Option<TransportError>,
    acknowledge_timeout: Duration,
}

impl RabbitMqConsumer {
    /// Declares what the group needs and starts to consume, with about `bytes` of messages fetched ahead.
    pub(crate) async fn start(
        connector: &Connector,
        topology: &Topology,
        spec: &GroupSpec,
        bytes: usize,
        limit: Duration,
    ) -> Result<Self, TransportError> {
        let window = PrefetchWindow::new(spec.prefetch, bytes);
        let deadline = Instant::now() + limit;
        let link = before(deadline, "connecting", connector.link()).await?;
        let what = format!("declaring and consuming group {:?}", spec.group);
        let start = async {
            let (channel, queue) = topology.group(&link, spec, deadline).await?;
            let deliveries = subscribe(&channel, &queue, window.open()).await?;
            Ok((channel, queue, deliveries))
        };
        let (channel, queue, deliveries) = before(deadline, &what, start).await?;
        Ok(Self {
            queue,
            deliveries,
            channel,
            _link: link,
            outstanding: Outstanding::default(),
            fetched: VecDeque::new(),
            prefetch: window.open(),
            window,
            before: 0,
            changing: None,
            ended: None,
            acknowledge_timeout: limit,
        })
    }

    /// Keeps a delivery until it is handed out.
    fn fetch(&mut self, delivery: Delivery) {
        let headers = incoming_headers(&delivery.properties);
        let body = crate::consume::body::body(delivery.data);
        let mut incoming = Incoming::new(delivery.delivery_tag, delivery.routing_key, headers, body);
        incoming.properties = incoming_properties(&delivery.properties, &delivery.exchange);
        incoming.redelivered = delivery.redelivered;
        incoming.delayed = was_delayed(&delivery.properties, self.queue.as_str());
        self.window.see(incoming.size());
        self.fetched.push_back(incoming);
    }

    /// Replaces the subscription if the window has changed.
    fn adjust(&mut self) {
        if self.window.open() != self.prefetch && self.changing.is_none() {
            self.replace_subscription();
        }
    }

    /// Begins to replace the subscription, because a new prefetch holds for new consumers only. It goes on in the background,
    /// whether or not anybody receives. No other replacement may be running.
    fn replace_subscription(&mut self) {
        self.prefetch = self.window.open();
        let (channel, queue, old) = (self.channel.clone(), self.queue.clone(), self.deliveries.tag());
        let (prefetch, limit) = (self.prefetch, self.acknowledge_timeout);
        debug!(%queue, prefetch, "prefetch follows the sizes of the messages");
        self.changing = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let change = async {
                // In this order the queue is never without a consumer: one with auto-delete would be gone.
                let deliveries = subscribe(&channel, &queue, prefetch).await?;
                let cancelled = channel.basic_cancel(old, BasicCancelOptions::default()).await;
                cancelled.map_err(|error| group_error(&queue, "consumed with another prefetch", &error))?;
                Ok(deliveries)
            };
            let late = || {
                unavailable(format!(
                    "queue {:?} could not be consumed with another prefetch within {limit:?}",
                    queue.as_str()
                ))
            };
            timeout(limit, change).await.unwrap_or_else(|_| Err(late()))
        })));
    }

    /// Waits until a change that is under way is done, and takes what both subscriptions have brought, in order. Cancel
    /// safe: the change goes on by itself.
    async fn changed(&mut self) -> Result<(), TransportError> {
        let Some(changing) = &mut self.changing else { return Ok(()) };
        let changed = changing.await;
        self.changing = None;
        let new = match changed
            .unwrap_or_else(|error| Err(unavailable(format!("consuming with another prefetch: {error}"))))
        {
            Ok(new) => new,
            Err(error) => return Err(self.ended.insert(error).clone()),
        };
        // The broker has confirmed the end of the old subscription, so all that it sent to either before that is here.
        let mut old = std::mem::replace(&mut self.deliveries, new);
        while let Some(Some(Ok(delivery))) = old.next().now_or_never() {
            self.fetch(delivery);
        }
        while self.ended.is_none()
            && let Some(next) = self.deliveries.next().now_or_never()
        {
            // The messages that are here are handed out before the end is reported.
            let _ = self.fetch_or_end(next);
        }
        self.fetched.make_contiguous().sort_unstable_by_key(|incoming| incoming.tag);
        self.before = self.outstanding.last();
        self.adjust();
        Ok(())
    }

    /// Waits until there is a message. Cancel safe: it is kept here once it has left lapin's queue.
    async fn wait(&mut self) -> Result<(), TransportError> {
        while self.fetched.is_empty() {
            self.changed().await?;
            if !self.fetched.is_empty() {
                break;
            }
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            if let Some(next) = self.deliveries.next().now_or_never() {
                self.fetch_or_end(next)?;
            } else if self.changing.is_none() && self.is_shut() {
                self.replace_subscription();
            } else if self.changing.is_none() {
                let next = self.deliveries.next().await;
                self.fetch_or_end(next)?;
            }
        }
        self.adjust();
        Ok(())
    }

    /// Whether the broker sends no more, as everything that this subscription lets in was handed out unacknowledged,
    /// though the group may have more.
    fn is_shut(&self) -> bool {
        self.outstanding.later_than(self.before) >= usize::from(self.prefetch)
            && self.outstanding.later_than(0) < usize::from(self.window.most())
    }

    fn fetch_or_end(&mut self, next: Option<lapin::Result<Delivery>>) -> Result<(), TransportError> {
        match next {
            Some(Ok(delivery)) => {
                self.fetch(delivery);
                Ok(())
            }
            ended => Err(self.end(ended.and_then(Result::err))),
        }
    }

    /// Records the error that lapin gave instead of a message.
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

    async fn write(&self, acknowledgement: Acknowledgement, how: Acknowledge) -> lapin::Result<()> {
        let Acknowledgement { tag, multiple } = acknowledgement;
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
        self.receive_within(limit, usize::MAX).await
    }

    async fn receive_within(&mut self, limit: usize, bytes: usize) -> Result<Vec<Incoming>, TransportError> {
        // The only await: a call that is dropped afterwards takes no message with it.
        self.wait().await?;
        let (mut received, mut total) = (Vec::new(), 0);
        while let Some(incoming) = self.fetched.pop_front() {
            total += incoming.size();
            if !received.is_empty() && total > bytes {
                self.fetched.push_front(incoming);
                break;
            }
            self.outstanding.add(incoming.tag);
            received.push(incoming);
            if received.len() >= limit {
                break;
            }
            if self.fetched.is_empty()
                && self.changing.is_none()
                && self.ended.is_none()
                && let Some(next) = self.deliveries.next().now_or_never()
            {
                // An end is reported by the next call.
                let _ = self.fetch_or_end(next);
                self.adjust();
            }
        }
        Ok(received)
    }

    async fn acknowledge(&mut self, tags: &[Tag], how: Acknowledge) -> Result<(), TransportError> {
        // `join_all` polls them in this order, so that they are written in it: the one that covers several tags first.
        let acknowledgements = self.outstanding.acknowledge(tags);
        let this = &*self;
        let writes =
            join_all(acknowledgements.into_iter().map(|acknowledgement| this.write(acknowledgement, how)));
        let Ok(results) = timeout(this.acknowledge_timeout, writes).await else {
            let limit = this.acknowledge_timeout;
            return Err(unavailable(format!(
                "acknowledgements for queue {:?} could not be written within {limit:?}",
                this.queue.as_str()
            )));
        };
        // A closed channel is no error here: the broker delivers again, and `receive` reports the end.
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
