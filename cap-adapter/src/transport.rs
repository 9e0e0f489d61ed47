//! What the bus asks of a broker, and the plain data that goes between them.
//!
//! A transport knows topics, groups and messages; exchanges, streams and partitions are its own affair. The model
//! of the behavior described here is `MemoryTransport`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{TransportError, TransportErrorKind};
use crate::message::{Headers, Message, TopicPattern};

/// What a transport is told about its bus when it starts.
#[derive(Debug, Clone)]
pub struct TransportContext {
    /// The name of this node, for the broker's list of connections.
    pub node: Arc<str>,
    /// The bus's version tag, which keeps fleets of different versions apart. `v1` is the default.
    pub version: Arc<str>,
}

/// The broker has the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// At least one queue has it, durably.
    Routed,
    /// No queue wanted it, and it is gone.
    Unrouted,
}

/// A message that the broker is to keep for a while.
#[derive(Debug, Clone)]
pub struct Delayed {
    /// The message. What a group gets back has all of its headers, id and name among them, and its body.
    pub message: Arc<Message>,
    /// For how long, at least. Brokers have a whole number of milliseconds; what is left over is rounded up.
    pub delay: Duration,
    /// Where it goes then.
    pub to: Destination,
}

/// A message that a transport of this process carries to other buses; see [`Transport::send_confirmed`].
#[derive(Debug, Clone)]
pub struct Outbound {
    /// The message.
    pub message: Arc<Message>,
    /// The groups, by their full names, that have it already, or get it without the transport.
    pub except: Vec<Arc<str>>,
}

/// Which groups have a message that was to go to other buses of this process. Both lists are empty when no other group
/// wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// The groups whose consumers have acknowledged it: their buses have stored it.
    pub stored: Vec<Arc<str>>,
    /// The groups that want it and have not stored it: nobody consumes their queue now, or the consumer took too long. The
    /// transport does not keep it for them; the bus sends it again.
    pub pending: Vec<Arc<str>>,
}

/// Where a delayed message goes when its time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To this group alone, by its full name; it then comes as [`Incoming::delayed`].
    Group(Arc<str>),
    /// To every group that wants its topic, as if it were sent then.
    Topic,
}

/// A group that wants messages.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// The full name of the group: the queue's name.
    pub group: Arc<str>,
    /// The topics it wants. Never empty.
    pub topics: Vec<TopicPattern>,
    /// The queue is somebody else's, such as an operator's dead-letter queue: it is consumed as it is, nothing is
    /// declared and nothing is bound. That it is missing is an error until it is there.
    pub existing: bool,
    /// At most so many messages are handed out without having been acknowledged.
    pub prefetch: u16,
}

/// Names a delivery towards the consumer that handed it out; rises with each delivery of a consumer.
pub type Tag = u64;

/// A message as the broker delivered it, before anyone has looked at it.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// By which it is acknowledged.
    pub tag: Tag,
    /// What the sender addressed it to: the routing key, the subject.
    pub routing_key: String,
    /// The headers as text or null. Values that are not text are turned into it, as far as that goes.
    pub headers: Headers,
    /// Everything else that the protocol carries, by its protocol's names, such as `message-id`, `type`,
    /// `content-type`, `correlation-id`. Nothing of it is needed; a header hook
    /// may want it.
    pub properties: Headers,
    /// The body.
    pub body: Bytes,
    /// Whether the broker has tried to deliver it before.
    pub redelivered: bool,
    /// Whether it comes back from a delay to this group alone; see [`Destination::Group`].
    pub delayed: bool,
}

impl Incoming {
    /// The bytes that headers and body take.
    #[must_use]
    pub fn size(&self) -> usize {
        self.headers.size() + self.body.len()
    }
}

/// How a delivery ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// It is stored; the broker forgets it.
    Accept,
    /// It is to be delivered again, here or elsewhere.
    Requeue,
}

/// A broker that a bus can live on.
///
/// The transport (re)connects by itself when it is called and is not connected; it never waits for longer than a
/// few seconds in one call, and says [`Unavailable`](crate::error::TransportErrorKind::Unavailable) instead. The
/// bus calls again, with growing pauses.
pub trait Transport: Send + Sync + 'static {
    /// The broker's own consumer of one group.
    type Consumer: Consumer;

    /// The transport's name for people: `RabbitMQ`.
    fn name(&self) -> &'static str;

    /// Checks the settings without touching the network. Called once, first.
    ///
    /// # Errors
    ///
    /// [`TransportErrorKind::Unusable`](crate::error::TransportErrorKind) with what is wrong, and no secret in it.
    fn start(&self, context: &TransportContext) -> Result<(), TransportError>;

    /// Whether messages could be sent now: connects for sending where that has not been done, and finds out whether
    /// the connection still stands. The bus asks at its start and while there is nothing to send, so that
    /// health is known without a message.
    ///
    /// A transport that does not know leaves it out, and counts as one that is up until a message says otherwise.
    ///
    /// # Errors
    ///
    /// As those of [`send`](Self::send).
    fn probe(&self) -> impl Future<Output = Result<(), TransportError>> + Send {
        async { Ok(()) }
    }

    /// The name of what every message is sent to, for operators: the exchange. By default the transport's own name.
    fn destination(&self) -> String {
        self.name().to_owned()
    }

    /// Checks a message before it is stored in the outbox, so that whoever publishes what the broker can never take
    /// learns of it at once. Called for each message that is published, in transactions, by handlers and as a reply too,
    /// so it must be cheap: no network, no wait. What it accepts may still turn out to be
    /// [`Invalid`](crate::error::TransportErrorKind::Invalid) when it is sent. Default: every message is accepted.
    ///
    /// # Errors
    ///
    /// What of the message the broker can never take, and what to do. `publish` fails with that text.
    fn check_message(&self, message: &Message) -> Result<(), TransportError> {
        let _ = message;
        Ok(())
    }

    /// Sends messages and waits until the broker has taken or refused each. Gives back one answer for each, in
    /// order. Headers that [stay](crate::message::headers::names::stays) are left out. Several calls may be under way at once; order between
    /// them, and after a failure within one, is not promised. A message of unknown outcome is `Unavailable`.
    fn send(
        &self,
        messages: &[Arc<Message>],
    ) -> impl Future<Output = Vec<Result<Sent, TransportError>>> + Send;

    /// Whether a sender addresses a topic by a routing key, on which the broker's permissions go, while the message names
    /// its topic once more in a header. Then the bus compares the two; see
    /// `CapOptions::match_routing_key`.
    fn routing_key_is_topic(&self) -> bool {
        false
    }

    /// Whether this transport exists only in this process, so that what it has taken is lost when the process dies.
    /// Default: `false`.
    ///
    /// On such a transport a bus does not count a message as sent when the transport has taken it. It stores the
    /// message itself in the inbox of each of its own groups, and sends it to the groups of other buses with
    /// [`send_confirmed`](Self::send_confirmed). What is to be delayed at the broker its storage keeps.
    fn is_in_process(&self) -> bool {
        false
    }

    /// Sends messages to every group that wants them, except those that are named with each, and waits until each of
    /// these groups has acknowledged it, for a few seconds at most. Gives back one answer for each, in order. Only
    /// called if [`is_in_process`](Self::is_in_process); by default everything is refused.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped leaves nothing behind but what consumers have been handed already.
    fn send_confirmed(
        &self,
        messages: &[Outbound],
    ) -> impl Future<Output = Vec<Result<Confirmed, TransportError>>> + Send {
        let refused = || {
            let text = "this transport does not know when a message is stored";
            TransportError::new(TransportErrorKind::Refused, self.name(), text)
        };
        let answers = messages.iter().map(|_| Err(refused())).collect();
        async move { answers }
    }

    /// Whether it can [`delay`](Self::delay). Called after `start`.
    fn can_delay(&self) -> bool {
        false
    }

    /// Whether it can delay the retries of a group, by its full name: whether all that consumes the group's queue knows what
    /// comes back to it for one, a copy without a body that stands for a row of the storage. Called before each retry.
    /// Where it cannot, the storage keeps them.
    fn can_delay_retries(&self, group: &str) -> bool {
        let _ = group;
        self.can_delay()
    }

    /// Has the broker keep messages for a time each, durably, and deliver them then. Waits until the broker has taken
    /// or refused each, and gives back one answer for each, in order. A message waits behind none that waits
    /// longer. It may come more than once. Everything else is as for [`send`](Self::send).
    fn delay(&self, messages: &[Delayed]) -> impl Future<Output = Vec<Result<(), TransportError>>> + Send {
        let refused = || {
            let text = "this transport cannot delay messages";
            TransportError::new(TransportErrorKind::Refused, self.name(), text)
        };
        let answers = messages.iter().map(|_| Err(refused())).collect();
        async move { answers }
    }

    /// Declares what the group needs (a durable queue bound to each topic) and starts to consume. Bindings are only
    /// ever added: another member of the group may want what this one does not.
    fn consume(
        &self,
        spec: &GroupSpec,
    ) -> impl Future<Output = Result<Self::Consumer, TransportError>> + Send;

    /// As [`consume`](Self::consume), for a group that has room for about `bytes` of messages in memory. A transport that
    /// fetches ahead of [`receive`](Consumer::receive) keeps what it has fetched to about that much, one message apart:
    /// with large messages it fetches fewer than [`GroupSpec::prefetch`]. Default: `consume`.
    fn consume_within(
        &self,
        spec: &GroupSpec,
        bytes: usize,
    ) -> impl Future<Output = Result<Self::Consumer, TransportError>> + Send {
        let _ = bytes;
        self.consume(spec)
    }

    /// Ends every connection, when all consumers are dropped and nothing is being sent. Later calls may fail.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// Messages for one group.
///
/// Dropping it ends the consumption; what was not acknowledged is delivered again, here or elsewhere.
pub trait Consumer: Send + 'static {
    /// Waits for messages and gives back as many as have gathered, at least one and at most `limit`.
    ///
    /// # Errors
    ///
    /// When the consumer has ended, for whatever reason. The bus then drops it and asks for a new one.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped takes no message with it.
    fn receive(&mut self, limit: usize)
    -> impl Future<Output = Result<Vec<Incoming>, TransportError>> + Send;

    /// As [`receive`](Self::receive), and gives back no more than `bytes` of messages, headers and bodies together: a
    /// larger message is given back alone. The default is `receive`, which does not look at sizes: a bus on such a
    /// transport takes more memory when its batches are large. The conformance suite asks for the bound.
    ///
    /// # Errors
    ///
    /// As those of `receive`.
    ///
    /// # Cancel safety
    ///
    /// As that of `receive`.
    fn receive_within(
        &mut self,
        limit: usize,
        bytes: usize,
    ) -> impl Future<Output = Result<Vec<Incoming>, TransportError>> + Send {
        let _ = bytes;
        self.receive(limit)
    }

    /// Acknowledges deliveries; the tags rise. Those of a connection that is gone are delivered again and are no error.
    fn acknowledge(
        &mut self,
        tags: &[Tag],
        how: Acknowledge,
    ) -> impl Future<Output = Result<(), TransportError>> + Send;
}
