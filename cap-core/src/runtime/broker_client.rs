//! The broker as the engine uses it: with its health, and with what this node must know before it sends.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{TransportError, TransportErrorKind};
use crate::runtime::erased::DynTransport;
use crate::runtime::health::Tracker;
use crate::runtime::retry_proof::RetryProofs;

/// The transport, and what this node knows of its broker. Dereferences to the transport's own methods.
pub(crate) struct BrokerClient {
    transport: Arc<dyn DynTransport>,
    pub(crate) health: Tracker,
    /// How many consumer groups of this bus have no queue at the broker yet; those with a queue of somebody else's are
    /// not counted. Nothing is sent before it is zero: a bus that starts without its broker would otherwise send messages
    /// past its own queues.
    pub(crate) undeclared: watch::Sender<usize>,
    /// Tells this storage's retries that come back from the broker from forged ones.
    pub(crate) retry_proofs: RetryProofs,
}

impl BrokerClient {
    /// `undeclared` is the number of groups whose queues this bus declares.
    pub(crate) fn new(transport: Arc<dyn DynTransport>, undeclared: usize) -> Self {
        Self {
            health: Tracker::new(transport.name()),
            transport,
            undeclared: watch::channel(undeclared).0,
            retry_proofs: RetryProofs::default(),
        }
    }

    /// The error of a message of which the transport has said nothing.
    pub(crate) fn no_answer(&self) -> TransportError {
        self.unavailable("the transport gave no answer for a message")
    }

    /// An error of the kind "unavailable", with this text.
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
