//! The in-memory transport: sending, consuming, outages on demand.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use super::broker::{Broker, Offered, Put};
use super::consumer::MemoryConsumer;
use super::queue::Parcel;
use super::transport_errors::{NAME, away, refused, unavailable};
use cap_adapter::BoxFuture;
use cap_adapter::error::{TransportError, TransportErrorKind};
use cap_adapter::message::Message;
use cap_adapter::message::headers::{Headers, names};
use cap_adapter::transport::{
    BrokerDelay, Confirmed, Delayed, GroupSpec, Outbound, Sent, Transport, TransportContext,
};

/// The default capacity of a queue, in messages.
const DEFAULT_CAPACITY: usize = 10_000;

/// How long a sender waits for room in a full queue.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a sender waits for other buses to store a message. They are in the same process.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// A broker in memory. Its messages are lost when the last clone is dropped.
///
/// A bus does not rely on it to keep messages ([`is_in_process`](Transport::is_in_process)): with a durable storage
/// it is as safe as a real broker. A message counts as sent only when the bus has stored it in the inbox of each of
/// its own groups, and the buses that have other clones in the inboxes of theirs. While such a bus is shut down, or
/// its storage is unavailable, the message stays in the sender's outbox, is sent again with growing pauses of up to
/// half a minute, and no attempt is counted.
///
/// Clones share one broker: buses with clones of one transport reach each other. Each bus uses the topic exchange of
/// its version, so that buses of different versions are separate. A group's queue remains when its consumers end, and
/// keeps messages that arrive; the members of a group share its messages. A queue is bounded: a sender waits up to
/// five seconds for room, and then gets [`Unavailable`](TransportErrorKind::Unavailable).
///
/// [Delayed](BrokerDelay::delay) messages are kept by tokio's clock; their number is limited to the capacity of one
/// queue. A due message whose queue is full or does not exist yet is kept until there is room.
///
/// ```
/// use std::sync::Arc;
///
/// use cap_core::memory::MemoryTransport;
/// use cap_core::message::{Message, TopicPattern};
/// use cap_core::transport::{Acknowledge, Consumer, GroupSpec, Sent, Transport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let transport = MemoryTransport::new();
/// let topics = vec![TopicPattern::parse("order.*")?];
/// let mut consumer =
///     transport.consume(&GroupSpec::new("billing", topics, 10)).await?;
///
/// let headers = [("cap-msg-id", "1"), ("cap-msg-name", "order.created")].into_iter().collect();
/// let message = Arc::new(Message::new(headers, &b"{}"[..]));
/// let sent = transport.send(&[message]).await;
/// assert!(matches!(sent[..], [Ok(Sent::Routed)]));
///
/// let received = consumer.receive(10).await?;
/// assert_eq!(received[0].routing_key, "order.created");
/// consumer.acknowledge(&[received[0].tag], Acknowledge::Accept).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MemoryTransport {
    broker: Arc<Broker>,
    /// Each clone has its own, since each bus starts its own transport.
    version: Mutex<Arc<str>>,
}

impl MemoryTransport {
    /// Creates an empty broker whose queues hold 10,000 messages each.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY)
    }

    /// Creates an empty broker with this queue capacity in messages, including unacknowledged ones. With zero the
    /// transport does not start.
    #[must_use]
    pub fn with_capacity(messages: usize) -> Self {
        Self { broker: Arc::new(Broker::new(messages)), version: Mutex::new(Arc::from("v1")) }
    }

    /// Makes the broker unavailable or available for all clones, to test how a service behaves in an outage.
    ///
    /// While it is unavailable every call returns [`Unavailable`](TransportErrorKind::Unavailable) and consumers end
    /// with that error. Queues keep their messages, including unacknowledged ones.
    ///
    /// ```
    /// # use cap_core::memory::MemoryTransport;
    /// # use cap_core::transport::Transport;
    /// # use cap_core::message::Message;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let transport = MemoryTransport::new();
    /// transport.set_available(false);
    /// let message = Message::new([("cap-msg-name", "order.created")].into_iter().collect(), "{}");
    /// let sent = transport.send(&[message.into()]).await;
    /// assert!(sent[0].as_ref().is_err_and(|error| error.is_unavailable()));
    /// # }
    /// ```
    pub fn set_available(&self, available: bool) {
        self.broker.set_available(available);
    }

    /// Sends a message like a foreign program: with any routing key, headers, properties and body. Nothing is added
    /// or removed. It goes to the exchange of this transport's version.
    ///
    /// # Errors
    ///
    /// Like [`send`](Transport::send): when the broker is unavailable, or a queue stays full.
    pub async fn publish_raw(
        &self,
        routing_key: impl Into<String>,
        headers: Headers,
        properties: Headers,
        body: impl Into<Bytes>,
    ) -> Result<Sent, TransportError> {
        let parcel = Parcel { routing_key: routing_key.into(), headers, properties, body: body.into() };
        self.put(&parcel, Instant::now() + ROOM_TIMEOUT).await
    }

    /// Puts a message into its queues as soon as all of them have room.
    async fn put(&self, parcel: &Parcel, deadline: Instant) -> Result<Sent, TransportError> {
        let version = self.version();
        let full = || format!("a queue for {:?}", parcel.routing_key);
        self.when_there_is_room(deadline, full, || self.broker.put(&version, parcel)).await
    }

    /// Adds a delayed message as soon as there is room for it.
    async fn keep(&self, delayed: &Delayed, deadline: Instant) -> Result<(), TransportError> {
        let parcel = parcel(&delayed.message)?;
        let due = Instant::now().checked_add(delayed.delay).ok_or_else(|| {
            refused(format!("a delay of {:?} ends after the end of the clock", delayed.delay))
        })?;
        let version = self.version();
        let full = || "the place for what is delayed".to_owned();
        let keep = || self.broker.keep(&version, &parcel, &delayed.to, due);
        self.when_there_is_room(deadline, full, keep).await.map(|_| ())
    }

    async fn when_there_is_room(
        &self,
        deadline: Instant,
        full: impl Fn() -> String,
        attempt: impl Fn() -> Put,
    ) -> Result<Sent, TransportError> {
        loop {
            // Registered before checking, so that room made in between is not missed.
            let room = self.broker.room.notified();
            match attempt() {
                Put::Done(sent) => return Ok(sent),
                Put::Away => return Err(away()),
                Put::Full => {}
            }
            if timeout_at(deadline, room).await.is_err() {
                let capacity = self.broker.capacity;
                return Err(unavailable(format!("{} stayed full ({capacity} messages)", full())));
            }
        }
    }

    /// Puts a message into all of its queues that have a consumer, waiting for room in full ones. Returns the queues
    /// that have it and those that do not.
    async fn offer(
        &self,
        Outbound { message, except, .. }: &Outbound,
        deadline: Instant,
    ) -> Result<OnTheWay, TransportError> {
        let (version, parcel) = (self.version(), parcel(message)?);
        let (mut except, mut taken) = (except.clone(), Vec::new());
        loop {
            // Registered before checking, so that room made in between is not missed.
            let room = self.broker.room.notified();
            let offered = self.broker.offer(&version, &parcel, &except).ok_or_else(away)?;
            let Offered { taken: more, full, unattended } = offered;
            except.extend(more.iter().map(|(group, _)| Arc::clone(group)));
            taken.extend(more);
            // Dropping this future drops the receivers, and with them the messages that no consumer has received yet.
            if full.is_empty() || timeout_at(deadline, room).await.is_err() {
                return Ok(OnTheWay { taken, pending: [full, unattended].concat() });
            }
        }
    }

    /// Waits until each queue's consumer has acknowledged a message.
    async fn confirmed(&self, way: OnTheWay, deadline: Instant) -> Result<Confirmed, TransportError> {
        let (mut stored, mut pending) = (Vec::new(), way.pending);
        for (group, acknowledged) in way.taken {
            match timeout_at(deadline, acknowledged).await {
                Ok(Ok(())) => stored.push(group),
                _ => pending.push(group),
            }
        }
        if !pending.is_empty() && self.broker.lock().is_away() {
            return Err(away());
        }
        Ok(Confirmed::new(stored, pending))
    }

    fn version(&self) -> Arc<str> {
        Arc::clone(&self.version.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A message in some of its queues.
struct OnTheWay {
    taken: Vec<(Arc<str>, oneshot::Receiver<()>)>,
    pending: Vec<Arc<str>>,
}

impl Default for MemoryTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for MemoryTransport {
    /// A clone of the handle to the same broker.
    fn clone(&self) -> Self {
        Self { broker: Arc::clone(&self.broker), version: Mutex::new(self.version()) }
    }
}

impl Transport for MemoryTransport {
    type Consumer = MemoryConsumer;

    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&self, context: &TransportContext) -> Result<(), TransportError> {
        if self.broker.capacity == 0 {
            return Err(TransportError::new(
                TransportErrorKind::Unusable,
                NAME,
                "queues of no capacity take no message: give with_capacity at least 1",
            ));
        }
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&context.version);
        Ok(())
    }

    async fn probe(&self) -> Result<(), TransportError> {
        if self.broker.lock().is_away() { Err(away()) } else { Ok(()) }
    }

    async fn send(&self, messages: &[Arc<Message>]) -> Vec<Result<Sent, TransportError>> {
        consume_budget().await;
        let deadline = Instant::now() + ROOM_TIMEOUT;
        let mut answers = Vec::with_capacity(messages.len());
        for message in messages {
            answers.push(match parcel(message) {
                Ok(parcel) => self.put(&parcel, deadline).await,
                Err(refused) => Err(refused),
            });
        }
        answers
    }

    fn is_in_process(&self) -> bool {
        true
    }

    async fn send_confirmed(&self, messages: &[Outbound]) -> Vec<Result<Confirmed, TransportError>> {
        consume_budget().await;
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        let mut under_way = Vec::with_capacity(messages.len());
        for message in messages {
            under_way.push(self.offer(message, deadline).await);
        }
        let mut answers = Vec::with_capacity(messages.len());
        for way in under_way {
            answers.push(match way {
                Ok(way) => self.confirmed(way, deadline).await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    fn broker_delay(&self) -> Option<&dyn BrokerDelay> {
        Some(self)
    }

    async fn consume(&self, spec: &GroupSpec) -> Result<MemoryConsumer, TransportError> {
        let version = self.version();
        let mut state = self.broker.lock();
        if state.is_away() {
            return Err(away());
        }
        if !spec.existing {
            state.declare(&version, &spec.group, &spec.topics);
        }
        let (number, arrived) = state.consume(&spec.group).ok_or_else(|| {
            unavailable(format!(
                "there is no queue {:?} yet, and it is not this bus's to declare",
                spec.group
            ))
        })?;
        Ok(MemoryConsumer {
            broker: Arc::clone(&self.broker),
            group: Arc::clone(&spec.group),
            number,
            prefetch: usize::from(spec.prefetch.max(1)),
            arrived,
        })
    }

    async fn close(&self) {}
}

impl BrokerDelay for MemoryTransport {
    fn delay<'a>(&'a self, messages: &'a [Delayed]) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        Box::pin(async move {
            consume_budget().await;
            let deadline = Instant::now() + ROOM_TIMEOUT;
            let mut answers = Vec::with_capacity(messages.len());
            for message in messages {
                answers.push(self.keep(message, deadline).await);
            }
            answers
        })
    }
}

/// The message as it is sent: without the headers that stay in the storage.
fn parcel(message: &Message) -> Result<Parcel, TransportError> {
    let Some(topic) = message.name() else {
        return Err(refused(format!(
            "a message without the header {} has no topic to go to",
            names::MESSAGE_NAME
        )));
    };
    let mut headers = message.headers.clone();
    let stays: Vec<String> =
        headers.iter().map(|(name, _)| name).filter(|name| names::stays(name)).map(str::to_owned).collect();
    for name in &stays {
        headers.remove(name);
    }
    Ok(Parcel {
        routing_key: topic.to_owned(),
        headers,
        properties: Headers::new(),
        body: message.body.clone(),
    })
}
