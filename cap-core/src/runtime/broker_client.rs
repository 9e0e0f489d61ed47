//! The broker as the engine uses it: the transport, its health, and what this node must know before it sends.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{TransportError, TransportErrorKind};
use crate::runtime::erased::DynTransport;
use crate::runtime::health::Tracker;
use crate::runtime::retry_proof::RetryProofs;
use crate::transport::Delayed;

/// The transport, together with what this node knows about its broker. Dereferences to the transport's own methods.
pub(crate) struct BrokerClient {
    transport: Arc<dyn DynTransport>,
    pub(crate) health: Tracker,
    /// How many consumer groups of this bus have no queue at the broker yet. Groups that consume an
    /// existing queue are not counted. Nothing is sent until this is zero: a bus that starts while its broker is unavailable would
    /// otherwise send messages before its own queues exist, and its groups would miss them.
    pub(crate) undeclared: watch::Sender<usize>,
    /// Distinguishes this storage's own retry copies, as the broker delivers them again, from forged ones.
    pub(crate) retry_proofs: RetryProofs,
}

impl BrokerClient {
    /// Wraps a transport. `undeclared` is the number of groups whose queues this bus declares.
    pub(crate) fn new(transport: Arc<dyn DynTransport>, undeclared: usize) -> Self {
        Self {
            health: Tracker::new(transport.name()),
            transport,
            undeclared: watch::channel(undeclared).0,
            retry_proofs: RetryProofs::default(),
        }
    }

    /// Has the broker delay messages, with one answer for each. A transport that cannot delay rejects them.
    pub(crate) async fn delay(&self, messages: &[Delayed]) -> Vec<Result<(), TransportError>> {
        if let Some(broker) = self.transport.broker_delay() {
            return broker.delay(messages).await;
        }
        let name = self.transport.name();
        let rejected =
            || TransportError::new(TransportErrorKind::Refused, name, "this transport cannot delay messages");
        messages.iter().map(|_| Err(rejected())).collect()
    }

    /// Whether retries of a group, by its full name, can wait at the broker.
    pub(crate) fn delays_retries_of(&self, group: &str) -> bool {
        self.transport.broker_delay().is_some_and(|broker| broker.delays_retries_of(group))
    }

    /// The error for a message for which the transport returned no result.
    pub(crate) fn no_answer(&self) -> TransportError {
        self.unavailable("the transport returned no result for this message")
    }

    /// Creates an error of the kind "unavailable" with this text.
    pub(crate) fn unavailable(&self, text: impl Into<String>) -> TransportError {
        TransportError::new(TransportErrorKind::Unavailable, self.transport.name(), text)
    }
}

impl Deref for BrokerClient {
    type Target = dyn DynTransport;

    fn deref(&self) -> &Self::Target {
        &*self.transport
    }
}

impl std::fmt::Debug for BrokerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BrokerClient({})", self.transport.name())
    }
}
