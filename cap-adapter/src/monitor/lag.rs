//! The lag: for how long messages have been due without a node that works on them.

use std::time::Duration;

use serde::Serialize;

use crate::storage::Side;

/// The lag of the outbox or of one group, across all nodes and bus versions that share the storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Lag {
    /// Which table.
    pub side: Side,
    /// The receiving group; empty for the outbox.
    pub group: String,
    /// The age of the oldest waiting message: the time since it became due, by the storage's clock.
    #[serde(with = "humantime_serde")]
    pub oldest: Duration,
}

impl Lag {
    /// The lag of a group, or with an empty group name that of the outbox.
    #[must_use]
    pub fn new(side: Side, group: impl Into<String>, oldest: Duration) -> Self {
        Self { side, group: group.into(), oldest }
    }
}
