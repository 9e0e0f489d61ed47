//! A bus as the cases use it: a started transport, and short ways to send and receive.

use std::sync::Arc;

use cap_adapter::error::TransportError;
use cap_adapter::message::headers::names;
use cap_adapter::message::{Headers, Message, TopicPattern};
use cap_adapter::transport::{
    Acknowledge, Consumer, GroupSpec, Incoming, Sent, Tag, Transport, TransportContext,
};

use super::TransportFixture;
use crate::patience::in_time;

pub(crate) struct Bus<'a, F: TransportFixture> {
    pub(crate) transport: F::Transport,
    fixture: &'a F,
}

type ConsumerOf<F> = <<F as TransportFixture>::Transport as Transport>::Consumer;

/// A message with an id, to a topic.
pub(crate) fn message(id: &str, topic: &str) -> Arc<Message> {
    let headers: Headers = [(names::MESSAGE_ID, id), (names::MESSAGE_NAME, topic)].into_iter().collect();
    Arc::new(Message::new(headers, format!("{{\"id\":{id:?}}}")))
}

/// Messages with the ids `<prefix>1` to `<prefix><count>`.
pub(crate) fn messages(prefix: &str, count: usize, topic: &str) -> Vec<Arc<Message>> {
    (1..=count).map(|number| message(&format!("{prefix}{number}"), topic)).collect()
}

/// The message id of a delivery; empty if it has none.
pub(crate) fn id(incoming: &Incoming) -> &str {
    incoming.headers.get(names::MESSAGE_ID).unwrap_or_default()
}

pub(crate) fn ids(incoming: &[Incoming]) -> Vec<&str> {
    incoming.iter().map(id).collect()
}

pub(crate) fn tags(incoming: &[Incoming]) -> Vec<Tag> {
    incoming.iter().map(|incoming| incoming.tag).collect()
}

impl<'a, F: TransportFixture> Bus<'a, F> {
    /// A transport of the usual version.
    pub(crate) async fn open(fixture: &'a F) -> Self {
        Self::open_version(fixture, "v1").await
    }

    pub(crate) async fn open_version(fixture: &'a F, version: &str) -> Self {
        let transport = fixture.open().await;
        let context = TransportContext::new("conformance", version);
        transport.start(&context).expect("the settings of the fixture's transport are in order");
        Self { transport, fixture }
    }

    /// Consumes for a group of the fixture's.
    pub(crate) async fn consume(&self, group: &str, topics: &[&str], prefetch: u16) -> ConsumerOf<F> {
        in_time("a consumer", self.try_consume(group, topics, prefetch)).await.expect("a consumer")
    }

    /// As [`consume`](Self::consume), with room for this many bytes.
    pub(crate) async fn consume_within(
        &self,
        group: &str,
        topics: &[&str],
        prefetch: u16,
        bytes: usize,
    ) -> ConsumerOf<F> {
        let spec = self.spec(group, topics, prefetch);
        in_time("a consumer", self.transport.consume_within(&spec, bytes)).await.expect("a consumer")
    }

    pub(crate) async fn try_consume(
        &self,
        group: &str,
        topics: &[&str],
        prefetch: u16,
    ) -> Result<ConsumerOf<F>, TransportError> {
        let spec = self.spec(group, topics, prefetch);
        self.transport.consume(&spec).await
    }

    /// A group on a queue of the fixture's that somebody else declares.
    pub(crate) fn existing(&self, group: &str, topics: &[&str]) -> GroupSpec {
        self.spec(group, topics, 10).on_existing_queue()
    }

    fn spec(&self, group: &str, topics: &[&str], prefetch: u16) -> GroupSpec {
        let topics = topics.iter().map(|topic| TopicPattern::parse(topic).expect("a topic")).collect();
        GroupSpec::new(self.group(group), topics, prefetch)
    }

    /// The full name of a group of the fixture's.
    pub(crate) fn group(&self, group: &str) -> Arc<str> {
        self.fixture.group(group)
    }

    /// Sends messages and returns where each went.
    pub(crate) async fn send(&self, messages: &[Arc<Message>]) -> Vec<Sent> {
        let answers = in_time("answers to a send", self.transport.send(messages)).await;
        assert_eq!(answers.len(), messages.len(), "one answer for each message");
        answers.into_iter().map(|answer| answer.expect("the broker takes the message")).collect()
    }

    /// Sends messages and expects that each has a queue.
    pub(crate) async fn send_routed(&self, messages: &[Arc<Message>]) {
        let sent = self.send(messages).await;
        assert!(sent.iter().all(|sent| *sent == Sent::Routed), "{sent:?}");
    }
}

/// Receives this many deliveries and leaves them unacknowledged.
pub(crate) async fn take(consumer: &mut impl Consumer, count: usize) -> Vec<Incoming> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let more = in_time("a delivery", consumer.receive(count - taken.len())).await.expect("deliveries");
        assert!(!more.is_empty(), "a receive returns at least one");
        taken.extend(more);
    }
    assert!(taken.is_sorted_by(|a, b| a.tag < b.tag), "tags rise: {:?}", tags(&taken));
    taken
}

/// Receives this many deliveries and accepts them.
pub(crate) async fn accept(consumer: &mut impl Consumer, count: usize) -> Vec<Incoming> {
    let taken = take(consumer, count).await;
    acknowledge(consumer, &taken, Acknowledge::Accept).await;
    taken
}

pub(crate) async fn acknowledge(consumer: &mut impl Consumer, taken: &[Incoming], how: Acknowledge) {
    in_time("acknowledging", consumer.acknowledge(&tags(taken), how))
        .await
        .expect("deliveries are acknowledged");
}
