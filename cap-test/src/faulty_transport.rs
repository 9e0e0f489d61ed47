//! A transport around the test's transport: it fails on demand, and counts what is at the broker.

use std::collections::HashMap;
use std::sync::Arc;

use cap_core::error::{TransportError, TransportErrorKind};
use cap_core::message::Message;
use cap_core::transport::{
    Acknowledge, Consumer, GroupSpec, Incoming, Sent, Tag, Transport, TransportContext,
};

use crate::faults::Faults;
use crate::traffic::Traffic;

/// Delays and retries stay in the storage, where the test sees them: it offers no delay at the broker. It is never "in
/// process", so that messages take the way that they take with a broker.
pub(crate) struct FaultyTransport<T> {
    pub(crate) inner: T,
    pub(crate) faults: Arc<Faults>,
    pub(crate) traffic: Arc<Traffic>,
}

impl<T: Transport> FaultyTransport<T> {
    async fn send_counted(&self, messages: &[Arc<Message>]) -> Vec<Result<Sent, TransportError>> {
        // Counted before it is sent: it can be acknowledged before the confirm is here.
        for message in messages {
            self.traffic.sending(message.name().unwrap_or_default(), message.id().unwrap_or_default());
        }
        let sent = self.inner.send(messages).await;
        for (message, sent) in messages.iter().zip(&sent) {
            if !matches!(sent, Ok(Sent::Routed)) {
                self.traffic.not_sent(message.name().unwrap_or_default(), message.id().unwrap_or_default());
            }
        }
        sent
    }

    fn unavailable(&self, what: &str) -> TransportError {
        TransportError::new(
            TransportErrorKind::Unavailable,
            self.inner.name(),
            format!("{what} (a fault of the test)"),
        )
    }
}

impl<T: Transport> Transport for FaultyTransport<T> {
    type Consumer = CountingConsumer<T::Consumer>;

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn start(&self, context: &TransportContext) -> Result<(), TransportError> {
        self.inner.start(context)
    }

    async fn probe(&self) -> Result<(), TransportError> {
        self.inner.probe().await
    }

    fn destination(&self) -> String {
        self.inner.destination()
    }

    fn check_message(&self, message: &Message) -> Result<(), TransportError> {
        self.inner.check_message(message)
    }

    async fn send(&self, messages: &[Arc<Message>]) -> Vec<Result<Sent, TransportError>> {
        if self.faults.send_fails() {
            return messages.iter().map(|_| Err(self.unavailable("the broker is unreachable"))).collect();
        }
        if self.faults.is_duplicated() {
            self.send_counted(messages).await;
        }
        let sent = self.send_counted(messages).await;
        if self.faults.confirm_is_lost() {
            return messages.iter().map(|_| Err(self.unavailable("the confirmation is lost"))).collect();
        }
        sent
    }

    fn routing_key_is_topic(&self) -> bool {
        self.inner.routing_key_is_topic()
    }

    async fn consume(&self, spec: &GroupSpec) -> Result<Self::Consumer, TransportError> {
        let inner = self.inner.consume(spec).await?;
        self.traffic.consumes(&spec.group, &spec.topics);
        Ok(CountingConsumer::new(inner, spec, &self.traffic))
    }

    async fn consume_within(&self, spec: &GroupSpec, bytes: usize) -> Result<Self::Consumer, TransportError> {
        let inner = self.inner.consume_within(spec, bytes).await?;
        self.traffic.consumes(&spec.group, &spec.topics);
        Ok(CountingConsumer::new(inner, spec, &self.traffic))
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// Notes what a group acknowledges.
pub(crate) struct CountingConsumer<C> {
    inner: C,
    group: Arc<str>,
    traffic: Arc<Traffic>,
    /// The message ids of what is received and not acknowledged.
    received: HashMap<Tag, String>,
}

impl<C: Consumer> CountingConsumer<C> {
    fn new(inner: C, spec: &GroupSpec, traffic: &Arc<Traffic>) -> Self {
        Self { inner, group: Arc::clone(&spec.group), traffic: Arc::clone(traffic), received: HashMap::new() }
    }

    fn note(&mut self, incoming: &[Incoming]) {
        let ids = incoming.iter().map(|delivery| {
            let id = delivery.headers.get("cap-msg-id").unwrap_or_default();
            (delivery.tag, id.to_owned())
        });
        self.received.extend(ids);
    }
}

impl<C: Consumer> Consumer for CountingConsumer<C> {
    async fn receive(&mut self, limit: usize) -> Result<Vec<Incoming>, TransportError> {
        let incoming = self.inner.receive(limit).await?;
        self.note(&incoming);
        Ok(incoming)
    }

    async fn receive_within(&mut self, limit: usize, bytes: usize) -> Result<Vec<Incoming>, TransportError> {
        let incoming = self.inner.receive_within(limit, bytes).await?;
        self.note(&incoming);
        Ok(incoming)
    }

    async fn acknowledge(&mut self, tags: &[Tag], how: Acknowledge) -> Result<(), TransportError> {
        self.inner.acknowledge(tags, how).await?;
        for tag in tags {
            let id = self.received.remove(tag);
            if let (Some(id), Acknowledge::Accept) = (id, how) {
                self.traffic.acknowledged(&self.group, &id);
            }
        }
        Ok(())
    }
}
