//! What an operator sees: messages, their attempts, counts.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::message::Message;
use crate::storage::{Reason, Side, Status};

/// A message as an operator sees it.
#[derive(Debug, Clone)]
pub struct Row {
    /// The row's id, which identifies it in every action.
    pub id: i64,
    /// Which table it is in.
    pub side: Side,
    /// The bus version it belongs to.
    pub version: String,
    /// The topic; empty if the delivery had none.
    pub name: String,
    /// The receiving group; empty for the outbox.
    pub group: Arc<str>,
    /// The message.
    pub message: Arc<Message>,
    /// Its status.
    pub status: Status,
    /// The reason for the status, if there is one.
    pub reason: Option<Reason>,
    /// The number of failed attempts.
    pub attempts: u32,
    /// How many times an operator re-ran it.
    pub reruns: u32,
    /// The last error, also after a later success.
    pub last_error: Option<String>,
    /// When it was stored, by the storage's clock.
    pub added: SystemTime,
    /// When it is due next; the end of the lease while a node is working on it.
    pub due: Option<SystemTime>,
    /// When it will be deleted, if that is known already.
    pub expires: Option<SystemTime>,
    /// The node that is working on it.
    pub owner: Option<String>,
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// The number of the attempt, from 1.
    pub number: u32,
    /// When it ended, by the storage's clock.
    #[serde(with = "humantime_serde")]
    pub at: SystemTime,
    /// The node that made it.
    pub node: String,
    /// The error.
    pub error: String,
    /// When the next attempt was due; `None` if it was the last one.
    #[serde(with = "humantime_serde")]
    pub next: Option<SystemTime>,
}

impl FailedAttempt {
    /// An attempt that failed at this time on this node; `next` is when the next one was due.
    #[must_use]
    pub fn new(
        number: u32,
        at: SystemTime,
        node: impl Into<String>,
        error: impl Into<String>,
        next: Option<SystemTime>,
    ) -> Self {
        Self { number, at, node: node.into(), error: error.into(), next }
    }
}

/// The number of messages of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Count {
    /// Which table.
    pub side: Side,
    /// The receiving group; empty for the outbox.
    pub group: String,
    /// Their status. Messages that succeeded at the first attempt and cancelled ones are not counted.
    pub status: Status,
    /// How many.
    pub count: u64,
}

impl Count {
    /// The number of messages of a group, or with an empty group name of the outbox, in this status.
    #[must_use]
    pub fn new(side: Side, group: impl Into<String>, status: Status, count: u64) -> Self {
        Self { side, group: group.into(), status, count }
    }
}

/// Counts that cost the same however many rows there are; see [`Monitor::bounded_counts`](super::Monitor::bounded_counts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BoundedCounts {
    /// The number of messages of each kind, or a lower bound of it.
    pub counts: Vec<Count>,
    /// Whether not all rows were counted: each count is then a lower bound, and a kind with few rows may be missing.
    pub is_capped: bool,
}

impl BoundedCounts {
    /// These counts; `is_capped` if not all rows were counted.
    #[must_use]
    pub fn new(counts: Vec<Count>, is_capped: bool) -> Self {
        Self { counts, is_capped }
    }
}
