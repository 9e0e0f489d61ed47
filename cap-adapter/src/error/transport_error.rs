//! The errors of transports.

use thiserror::Error;

use super::text::error_text;

/// The kind of a transport error, which decides what the bus does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// The broker cannot be reached or did not reply in time: the outcome is unknown and the same call may succeed
    /// later. The bus waits and retries; no attempt is counted.
    Unavailable,
    /// The broker rejects this message or this declaration: a body too large, a queue that exists with different
    /// arguments. Counts as a failed attempt.
    Refused,
    /// The broker could not enqueue this message, which may be valid: a negative confirm, because a queue is full and
    /// rejects (`reject-publish`), or fails. The message waits in the storage and is sent again with growing pauses;
    /// no attempt is counted. `Health` names the topic meanwhile.
    DestinationFull,
    /// This message can never be sent: a header that the broker's protocol cannot represent, a body above the
    /// broker's limit. It is parked at the first attempt.
    Invalid,
    /// The settings of the transport are wrong, such as an invalid connection string. `start` fails with it.
    Unusable,
}

/// An error of a transport.
#[derive(Debug, Clone, Error)]
#[error("{transport}: {message}")]
pub struct TransportError {
    kind: TransportErrorKind,
    transport: &'static str,
    message: String,
    operator: bool,
}

impl TransportError {
    /// Creates an error of the transport named `transport`. The message is logged and stored, so it must not contain
    /// a secret. It is bounded and escaped by [`error_text`].
    pub fn new(kind: TransportErrorKind, transport: &'static str, message: impl Into<String>) -> Self {
        Self { kind, transport, message: error_text(message.into()), operator: false }
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later; the outcome of this one is unknown.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.kind == TransportErrorKind::Unavailable
    }

    /// Marks the error as one that lasts until an operator acts, such as a password that the broker rejects. The bus
    /// waits as in any outage, but logs an error.
    #[must_use]
    pub fn requiring_operator(mut self) -> Self {
        self.operator = true;
        self
    }

    /// Whether an operator must act: true for errors marked so, and for each that is not
    /// [`Unavailable`](TransportErrorKind).
    #[must_use]
    pub fn requires_operator(&self) -> bool {
        self.operator || !self.is_unavailable()
    }

    /// What went wrong, without the transport's name.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}
