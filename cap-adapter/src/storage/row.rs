//! What every row has: its table, its lease, its status and the reason for that.

use serde::{Serialize, Serializer};

/// Which of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Messages that this service publishes.
    Outbox,
    /// Messages that this service consumes.
    Inbox,
}

/// The right to change a row: its id and its epoch, the number of its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The row.
    pub id: i64,
    /// How many times the row had been claimed when this lease was given; a row inserted as leased starts at 1.
    pub epoch: i32,
}

/// The status of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// Stored, to be processed now.
    Scheduled,
    /// To be published later.
    Delayed,
    /// Failed, with attempts left.
    Retrying,
    /// Failed for good, or parked: waits for an operator.
    Failed,
    /// Finished.
    Succeeded,
}

/// The reason for a row's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Every attempt that the policy allows has failed.
    Exhausted,
    /// The handler, or for a published message the transport, reported that no further attempt can succeed.
    Permanent,
    /// The delivery has no message id or no name, or the hook that could have set them panicked.
    MissingHeaders,
    /// The body cannot be decoded as the handler's payload.
    Undecodable,
    /// No handler of the group subscribes to this topic.
    NoSubscriber,
    /// The broker accepted the message but could not route it to any queue. The row counts as succeeded.
    Unrouted,
    /// An operator or the application cancelled the delayed message.
    Cancelled,
    /// The stored row cannot be read, or the storage rejected the message as it was received.
    Corrupt,
    /// Another message with this message id was received before. The row is stored under a generated id, and its
    /// headers keep the original id, under which it is handled if an operator runs it.
    IdConflict,
    /// The message asks for a reply to a topic that `callbacks_to` does not allow.
    CallbackNotAllowed,
    /// The message names a topic that differs from its routing key.
    NameMismatch,
    /// The process died while handling the message, as many times as `CapOptions::crash_limit` allows.
    ProcessCrashed,
}

impl Reason {
    /// All reasons, for storages that keep them as text.
    pub const ALL: [Self; 12] = [
        Self::Exhausted,
        Self::Permanent,
        Self::MissingHeaders,
        Self::Undecodable,
        Self::NoSubscriber,
        Self::Unrouted,
        Self::Cancelled,
        Self::Corrupt,
        Self::IdConflict,
        Self::CallbackNotAllowed,
        Self::NameMismatch,
        Self::ProcessCrashed,
    ];

    /// The stable name, as it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Permanent => "permanent",
            Self::MissingHeaders => "missing-headers",
            Self::Undecodable => "undecodable",
            Self::NoSubscriber => "no-subscriber",
            Self::Unrouted => "unrouted",
            Self::Cancelled => "cancelled",
            Self::Corrupt => "corrupt",
            Self::IdConflict => "id-conflict",
            Self::CallbackNotAllowed => "callback-not-allowed",
            Self::NameMismatch => "name-mismatch",
            Self::ProcessCrashed => "process-crashed",
        }
    }

    /// Whether messages get this reason before any handler has run.
    #[must_use]
    pub const fn is_of_receipt(self) -> bool {
        matches!(
            self,
            Self::MissingHeaders
                | Self::Undecodable
                | Self::NoSubscriber
                | Self::Corrupt
                | Self::CallbackNotAllowed
                | Self::NameMismatch
        )
    }

    /// Whether the reason is about received input, rather than about a handler or the broker: any sender can cause as
    /// many of these as it likes.
    #[doc(hidden)]
    #[must_use]
    pub fn is_about_input(self) -> bool {
        self.is_of_receipt() || self == Self::IdConflict
    }

    /// The reason with a stable name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
