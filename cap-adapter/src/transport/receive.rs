//! What a group receives, and how it acknowledges that.

use std::sync::Arc;

use bytes::Bytes;

use crate::message::{Headers, TopicPattern};

/// A group and its subscriptions.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupSpec {
    /// The full name of the group: the queue's name.
    pub group: Arc<str>,
    /// The topics it subscribes to. Never empty.
    pub topics: Vec<TopicPattern>,
    /// Whether the queue is managed elsewhere, such as an operator's dead-letter queue: it is consumed as it is,
    /// nothing is declared and nothing is bound. If it is missing, consuming fails until it exists.
    pub existing: bool,
    /// The maximum number of delivered messages that are not acknowledged.
    pub prefetch: u16,
}

impl GroupSpec {
    /// A group with a queue that the bus declares and binds.
    #[must_use]
    pub fn new(group: impl Into<Arc<str>>, topics: Vec<TopicPattern>, prefetch: u16) -> Self {
        Self { group: group.into(), topics, existing: false, prefetch }
    }

    /// The same group on a queue that exists and that the bus does not declare: [`existing`](Self::existing).
    #[must_use]
    pub fn on_existing_queue(mut self) -> Self {
        self.existing = true;
        self
    }
}

/// Identifies a delivery of a consumer; increases with each delivery.
pub type Tag = u64;

/// A message as the broker delivered it, before any check.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Incoming {
    /// The tag to acknowledge it by.
    pub tag: Tag,
    /// The address that the sender used: the routing key, the subject.
    pub routing_key: String,
    /// The headers as text or null. Other values are converted to text where possible.
    pub headers: Headers,
    /// Other properties by the protocol's names, such as `message-id`, `type`, `content-type`, `correlation-id`. None
    /// of them is required; `map_incoming` may use them.
    pub properties: Headers,
    /// The body.
    pub body: Bytes,
    /// Whether the broker has delivered it before.
    pub redelivered: bool,
    /// Whether it was delayed for this group only; see [`Destination::Group`](crate::transport::Destination::Group).
    pub delayed: bool,
}

impl Incoming {
    /// A delivery without properties that is neither redelivered nor delayed; set those fields where the broker says more.
    #[must_use]
    pub fn new(tag: Tag, routing_key: impl Into<String>, headers: Headers, body: impl Into<Bytes>) -> Self {
        Self {
            tag,
            routing_key: routing_key.into(),
            headers,
            properties: Headers::new(),
            body: body.into(),
            redelivered: false,
            delayed: false,
        }
    }

    /// The size of headers and body in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.headers.size() + self.body.len()
    }
}

/// How a delivery is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// It is stored; the broker removes it.
    Accept,
    /// The broker delivers it again, to this or another consumer.
    Requeue,
}
