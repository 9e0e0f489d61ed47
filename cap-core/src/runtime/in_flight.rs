//! A stored message that this node is sending or handling.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::message::Message;
use crate::storage::{Claimed, Lease};

/// A stored message that this node leases, on its way to the broker or to its handler.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) lease: Lease,
    pub(crate) message: Arc<Message>,
    /// How many attempts have failed.
    pub(crate) attempts: u32,
    /// How many of them failed before an operator last re-ran it.
    pub(crate) attempts_before_rerun: u32,
    /// How old the message was when this node stored or claimed it.
    pub(crate) age: Duration,
    /// When this node stored or claimed it.
    got: Instant,
}

impl InFlight {
    /// A message that this node has stored, no earlier than `since`.
    pub(crate) fn stored(lease: Lease, message: Arc<Message>, since: Instant) -> Self {
        Self { lease, message, attempts: 0, attempts_before_rerun: 0, age: Duration::ZERO, got: since }
    }

    /// A message that this node has claimed.
    pub(crate) fn claimed(claimed: Claimed) -> Self {
        Self {
            lease: claimed.lease,
            message: claimed.message,
            attempts: claimed.attempts,
            attempts_before_rerun: claimed.attempts_before_rerun,
            age: claimed.age,
            got: Instant::now(),
        }
    }

    /// How long ago the message was stored.
    pub(crate) fn age_now(&self) -> Duration {
        self.age.saturating_add(self.got.elapsed())
    }
}
