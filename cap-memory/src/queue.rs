//! A queue of the in-memory broker, and the messages in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use cap_adapter::message::{Headers, TopicPattern};
use cap_adapter::transport::{Incoming, Tag};

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The bindings of each version's exchange to this queue.
    pub(super) bindings: Vec<(Arc<str>, TopicPattern)>,
    /// In the order of arrival. A message that is returned gets its old position.
    pub(super) ready: BTreeMap<u64, Stored>,
    pub(super) consumers: BTreeMap<u64, Handed>,
    pub(super) last_place: u64,
    pub(super) arrived: Arc<Notify>,
}

/// The unacknowledged messages of a consumer, with the position of each in the queue.
#[derive(Debug, Default)]
pub(super) struct Handed {
    pub(super) unacknowledged: BTreeMap<Tag, (u64, Stored)>,
    pub(super) last_tag: Tag,
}

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) parcel: Parcel,
    pub(super) redelivered: bool,
    pub(super) delayed: bool,
    /// The sender that waits for the acknowledgement. Without one the queue keeps the message until it is
    /// acknowledged.
    pub(super) sender: Option<oneshot::Sender<()>>,
}

impl Stored {
    /// Whether its sender has stopped waiting, and will send it again.
    pub(super) fn is_abandoned(&self) -> bool {
        self.sender.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

/// A message inside the broker.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pub(super) routing_key: String,
    pub(super) headers: Headers,
    pub(super) properties: Headers,
    pub(super) body: Bytes,
}

impl Parcel {
    pub(super) fn size(&self) -> usize {
        self.headers.size() + self.body.len()
    }
}

impl Queue {
    pub(super) fn wants(&self, version: &Arc<str>, routing_key: &str) -> bool {
        self.bindings.iter().any(|(exchange, topic)| exchange == version && topic.matches(routing_key))
    }

    /// The number of messages that occupy the queue, including unacknowledged ones, which may come back.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.consumers.values().map(|handed| handed.unacknowledged.len()).sum::<usize>()
    }

    pub(super) fn add(&mut self, parcel: Parcel, delayed: bool, sender: Option<oneshot::Sender<()>>) {
        self.last_place += 1;
        self.ready.insert(self.last_place, Stored { parcel, redelivered: false, delayed, sender });
        self.arrived.notify_waiters();
    }

    pub(super) fn take_back(&mut self, messages: impl IntoIterator<Item = (u64, Stored)>) {
        for (place, stored) in messages {
            self.ready.insert(place, Stored { redelivered: true, ..stored });
        }
        self.arrived.notify_waiters();
    }

    pub(super) fn end(&mut self, consumer: u64) {
        if let Some(handed) = self.consumers.remove(&consumer) {
            self.take_back(handed.unacknowledged.into_values());
        }
        if self.consumers.is_empty() {
            // A waiting sender is notified at once that there is no consumer.
            self.ready.retain(|_, stored| stored.sender.is_none());
        }
    }
}

impl Handed {
    pub(super) fn hand_out(&mut self, place: u64, stored: Stored) -> Incoming {
        self.last_tag += 1;
        let Parcel { routing_key, headers, properties, body } = stored.parcel.clone();
        let (redelivered, delayed) = (stored.redelivered, stored.delayed);
        self.unacknowledged.insert(self.last_tag, (place, stored));
        let mut incoming = Incoming::new(self.last_tag, routing_key, headers, body);
        incoming.properties = properties;
        (incoming.redelivered, incoming.delayed) = (redelivered, delayed);
        incoming
    }
}
