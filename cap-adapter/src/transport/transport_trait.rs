//! The traits of a transport and of its consumers.

use std::future::Future;
use std::sync::Arc;

use super::receive::{Acknowledge, GroupSpec, Incoming, Tag};
use super::send::{Confirmed, Delayed, Outbound, Sent};
use crate::BoxFuture;
use crate::error::{TransportError, TransportErrorKind};
use crate::message::Message;

/// What a transport learns about its bus when it starts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransportContext {
    /// The name of this node, for the broker's list of connections.
    pub node: Arc<str>,
    /// The bus's version tag, which separates fleets of different versions. `v1` is the default.
    pub version: Arc<str>,
}

impl TransportContext {
    /// The context of a bus with this node name and version tag.
    #[must_use]
    pub fn new(node: impl Into<Arc<str>>, version: impl Into<Arc<str>>) -> Self {
        Self { node: node.into(), version: version.into() }
    }
}

/// The connection of a bus to its broker.
///
/// The transport connects or reconnects when it is called. It never waits longer than a few seconds in one call, and
/// returns [`Unavailable`](crate::error::TransportErrorKind::Unavailable) instead. The bus calls again, with growing
/// pauses.
pub trait Transport: Send + Sync + 'static {
    /// The consumer of one group.
    type Consumer: Consumer;

    /// The transport's display name: `RabbitMQ`.
    fn name(&self) -> &'static str;

    /// Checks the settings without touching the network. Called once, first.
    ///
    /// # Errors
    ///
    /// [`TransportErrorKind::Unusable`](crate::error::TransportErrorKind) with what is wrong, and no secret in it.
    fn start(&self, context: &TransportContext) -> Result<(), TransportError>;

    /// Checks whether messages can be sent now: connects for sending if necessary, and checks whether the connection
    /// is alive. The bus calls it at its start and while there is nothing to send, so that its health is known
    /// without a message.
    ///
    /// Optional: a transport without it counts as up until sending a message fails.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    fn probe(&self) -> impl Future<Output = Result<(), TransportError>> + Send {
        async { Ok(()) }
    }

    /// The name of the exchange or its equivalent, for operators. The default is the transport's own name.
    fn destination(&self) -> String {
        self.name().to_owned()
    }

    /// Checks a message before it is stored in the outbox, so that publishing a message that the broker can never
    /// accept fails at once. Called for each published message, also in transactions, by handlers and for replies, so
    /// it must be cheap: no network, no waiting. A message that it accepts may still turn out to be
    /// [`Invalid`](crate::error::TransportErrorKind::Invalid) when it is sent. Default: every message is accepted.
    ///
    /// # Errors
    ///
    /// Which part of the message the broker can never accept, and what to do. `publish` fails with that text.
    fn check_message(&self, message: &Message) -> Result<(), TransportError> {
        let _ = message;
        Ok(())
    }

    /// Sends messages and waits until the broker has confirmed or rejected each. Returns one result for each, in
    /// order. Headers that [stay](crate::message::headers::names::stays) are left out. Several calls may run
    /// concurrently; the order between them, and within one after a failure, is not guaranteed. A message with
    /// unknown outcome is `Unavailable`.
    fn send(
        &self,
        messages: &[Arc<Message>],
    ) -> impl Future<Output = Vec<Result<Sent, TransportError>>> + Send;

    /// Whether senders use a routing key, which the broker's permissions apply to, besides the topic in the message's
    /// header. If so, the bus compares the two; see `CapOptions::match_routing_key`.
    fn routing_key_is_topic(&self) -> bool {
        false
    }

    /// Whether this transport exists only in this process, so that its messages are lost when the process dies. The
    /// default is `false`.
    ///
    /// With such a transport a confirm of the transport does not count. The bus stores the message in the inbox of
    /// each of its own groups, and sends it to the groups of other buses with
    /// [`send_confirmed`](Self::send_confirmed). The storage keeps messages that are to be delayed at the broker.
    fn is_in_process(&self) -> bool {
        false
    }

    /// Sends messages to every group that subscribes to them, except the groups named with each, and waits, for a few
    /// seconds at most, until each of these groups has acknowledged it. Returns one result for each, in order. Only
    /// called if [`is_in_process`](Self::is_in_process); the default rejects everything.
    ///
    /// # Cancel safety
    ///
    /// A dropped call leaves nothing behind except messages that consumers have already received.
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

    /// What the transport can delay messages with, if its broker can do that. Asked after `start`. Default: `None`, and the
    /// storage keeps what is delayed.
    fn broker_delay(&self) -> Option<&dyn BrokerDelay> {
        None
    }

    /// Declares what the group needs (a durable queue bound to each topic) and starts to consume. Bindings are only
    /// ever added: another member of the group may subscribe to other topics.
    fn consume(
        &self,
        spec: &GroupSpec,
    ) -> impl Future<Output = Result<Self::Consumer, TransportError>> + Send;

    /// Like [`consume`](Self::consume), for a group with room for about `bytes` of messages in memory. A transport
    /// that prefetches messages before [`receive`](Consumer::receive) limits them to about that size plus one
    /// message: with large messages it prefetches fewer than [`GroupSpec::prefetch`]. The default is `consume`.
    fn consume_within(
        &self,
        spec: &GroupSpec,
        bytes: usize,
    ) -> impl Future<Output = Result<Self::Consumer, TransportError>> + Send {
        let _ = bytes;
        self.consume(spec)
    }

    /// Closes all connections, after all consumers are dropped and nothing is being sent. Later calls may fail.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// Delays at the broker, the capability of a transport that returns it from [`Transport::broker_delay`].
///
/// A transport usually implements it itself and returns `Some(self)`:
///
/// ```
/// use cap_adapter::BoxFuture;
/// use cap_adapter::error::TransportError;
/// use cap_adapter::transport::{BrokerDelay, Delayed};
///
/// struct MyBroker;
///
/// impl MyBroker {
///     async fn keep(&self, delayed: &Delayed) -> Result<(), TransportError> {
///         // Hands the message to the broker and waits for its confirm.
/// #       let _ = delayed;
///         Ok(())
///     }
/// }
///
/// impl BrokerDelay for MyBroker {
///     fn delay<'a>(&'a self, messages: &'a [Delayed]) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
///         Box::pin(async move {
///             let mut answers = Vec::with_capacity(messages.len());
///             for message in messages {
///                 answers.push(self.keep(message).await);
///             }
///             answers
///         })
///     }
/// }
/// ```
pub trait BrokerDelay: Send + Sync {
    /// Has the broker keep each message durably for its delay and then deliver it. Waits until the broker has confirmed or
    /// rejected each, and returns one result for each, in order. A message is not held up by one with a longer delay. It
    /// may be delivered more than once. Everything else is as for [`Transport::send`].
    fn delay<'a>(&'a self, messages: &'a [Delayed]) -> BoxFuture<'a, Vec<Result<(), TransportError>>>;

    /// Whether retries of a group, by its full name, can be delayed at the broker. A retry that returns is a copy without a
    /// body that stands for a row of the storage, so every consumer of the group's queue must be one of cap for Rust.
    /// Called before each retry; if it cannot, the storage keeps the retry. Default: `true`.
    fn delays_retries_of(&self, group: &str) -> bool {
        let _ = group;
        true
    }
}

/// The consumer of one group's messages.
///
/// Dropping it stops consuming; messages that are not acknowledged are delivered again, to this or another consumer.
pub trait Consumer: Send + 'static {
    /// Waits for messages and returns those that have arrived, at least one and at most `limit`.
    ///
    /// # Errors
    ///
    /// When the consumer has ended for any reason. The bus then drops it and starts a new one.
    ///
    /// # Cancel safety
    ///
    /// A dropped call loses no message.
    fn receive(&mut self, limit: usize)
    -> impl Future<Output = Result<Vec<Incoming>, TransportError>> + Send;

    /// Like [`receive`](Self::receive), but returns at most `bytes` of messages, headers and bodies together; a
    /// larger message is returned alone. The default is `receive`, which ignores sizes, so that a bus on such a
    /// transport takes more memory when its batches are large. The conformance suite requires the bound.
    ///
    /// # Errors
    ///
    /// Those of `receive`.
    ///
    /// # Cancel safety
    ///
    /// That of `receive`.
    fn receive_within(
        &mut self,
        limit: usize,
        bytes: usize,
    ) -> impl Future<Output = Result<Vec<Incoming>, TransportError>> + Send {
        let _ = bytes;
        self.receive(limit)
    }

    /// Acknowledges deliveries, with increasing tags. Deliveries of a lost connection are delivered again and are not
    /// an error.
    fn acknowledge(
        &mut self,
        tags: &[Tag],
        how: Acknowledge,
    ) -> impl Future<Output = Result<(), TransportError>> + Send;
}
