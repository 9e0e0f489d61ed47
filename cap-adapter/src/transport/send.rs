//! What is sent, and the results of sending.

use std::sync::Arc;
use std::time::Duration;

use crate::message::Message;

/// The result of a confirmed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// At least one queue has stored it durably.
    Routed,
    /// The broker could not route it to any queue, and it is lost.
    Unrouted,
}

/// A message that the broker delivers after a delay.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delayed {
    /// The message. It is delivered with its body and all of its headers, including id and name.
    pub message: Arc<Message>,
    /// The shortest delay. It is rounded up to whole milliseconds.
    pub delay: Duration,
    /// Where it is delivered.
    pub to: Destination,
}

impl Delayed {
    /// A message that the broker is to keep for `delay` and then deliver to `to`.
    #[must_use]
    pub fn new(message: Arc<Message>, delay: Duration, to: Destination) -> Self {
        Self { message, delay, to }
    }
}

/// A message that an in-process transport carries to other buses; see [`Transport::send_confirmed`](crate::transport::Transport::send_confirmed).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outbound {
    /// The message.
    pub message: Arc<Message>,
    /// The full names of the groups that have it already, or get it without the transport.
    pub except: Vec<Arc<str>>,
}

impl Outbound {
    /// A message for all groups that subscribe to it, except these.
    #[must_use]
    pub fn new(message: Arc<Message>, except: Vec<Arc<str>>) -> Self {
        Self { message, except }
    }
}

/// Which groups have stored a message for other buses of this process. Both lists are empty if no other group
/// subscribes to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Confirmed {
    /// The groups whose consumers have acknowledged it: their buses have stored it.
    pub stored: Vec<Arc<str>>,
    /// The subscribed groups that have not stored it: their queue has no consumer, or the consumer took too long. The
    /// transport does not keep it for them; the bus sends it again.
    pub pending: Vec<Arc<str>>,
}

impl Confirmed {
    /// The groups that have stored a message, and those that want it and have not.
    #[must_use]
    pub fn new(stored: Vec<Arc<str>>, pending: Vec<Arc<str>>) -> Self {
        Self { stored, pending }
    }
}

/// Where a delayed message goes when its delay is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To this group only, by its full name; it arrives with [`Incoming::delayed`](crate::transport::Incoming::delayed).
    Group(Arc<str>),
    /// To every group that subscribes to its topic, as if it were sent then.
    Topic,
}
