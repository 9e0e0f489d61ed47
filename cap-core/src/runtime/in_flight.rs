//! A stored message that this node works on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::message::Message;
use crate::storage::{Claimed, Lease};

/// A stored message that this node works on, on its way to the broker or to its handler.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) lease: Lease,
    pub(crate) message: Arc<Message>,
    /// Attempts that have failed.
    pub(crate) attempts: u32,
    /// Of those, the ones before an operator last re-ran it.
    pub(crate) attempts_before_rerun: u32,
    /// How old it was when this node got it.
    pub(crate) age: Duration,
    /// When this node got it.
    got: Instant,
}

impl InFlight {
    /// One that this node has stored, at this time at the earliest.
    pub(crate) fn stored(lease: Lease, message: Arc<Message>, since: Instant) -> Self {
        Self { lease, message, attempts: 0, attempts_before_rerun: 0, age: Duration::ZERO, got: since }
    }

    /// One that was claimed.
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

    /// How long ago it was stored.
    pub(crate) fn age_now(&self) -> Duration {
        self.age.saturating_add(self.got.elapsed())
    }
}
