//! The state of a message as an operator thinks of it.

use std::time::SystemTime;

use serde::Serialize;

use super::row::Row;
use crate::storage::{Reason, Status};

/// The state of a message as an operator thinks of it. It follows from the status, the reason and the lease of a row; each row
/// is in exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MessageState {
    /// It waits for its first attempt, or was re-run.
    Scheduled,
    /// It is published, but not to be sent before a time.
    Delayed,
    /// An attempt failed, and it waits for the next one.
    Retrying,
    /// A node has leased it: it is sending or handling it, or has it in its queue.
    Leased,
    /// It was sent, or handled.
    Succeeded,
    /// It failed for good, and waits for an operator.
    Parked,
    /// It was cancelled before it was due.
    Cancelled,
}

impl MessageState {
    /// All states, in the order in which messages go through them.
    pub const ALL: [Self; 7] = [
        Self::Scheduled,
        Self::Delayed,
        Self::Leased,
        Self::Retrying,
        Self::Succeeded,
        Self::Parked,
        Self::Cancelled,
    ];

    /// The state that follows from the columns of a row; `is_leased` if a node owns it and its lease is valid.
    #[must_use]
    pub fn of(status: Status, reason: Option<Reason>, is_leased: bool) -> Self {
        match status {
            Status::Succeeded => Self::Succeeded,
            Status::Failed if reason == Some(Reason::Cancelled) => Self::Cancelled,
            Status::Failed => Self::Parked,
            _ if is_leased => Self::Leased,
            Status::Delayed => Self::Delayed,
            Status::Retrying => Self::Retrying,
            Status::Scheduled => Self::Scheduled,
        }
    }

    /// The name in filters and addresses: `scheduled`, `delayed`, `retrying`, `leased`, `succeeded`, `parked` or `cancelled`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Delayed => "delayed",
            Self::Retrying => "retrying",
            Self::Leased => "leased",
            Self::Succeeded => "succeeded",
            Self::Parked => "parked",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this [name](Self::as_str).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl Row {
    /// The state of the message at this time, by the storage's clock.
    #[must_use]
    pub fn state(&self, now: SystemTime) -> MessageState {
        let is_leased = self.owner.is_some() && self.due.is_some_and(|due| due > now);
        MessageState::of(self.status, self.reason, is_leased)
    }
}
