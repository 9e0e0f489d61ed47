//! The messages of a channel that lapin may not have written to the socket yet.
//!
//! **Works around:** lapin sends what it still holds for a channel after that channel is closed, onto a new channel of the
//! same number, where each confirm is then taken for that of another message. So a channel that ends with unwritten
//! messages takes its connection with it.
//! **Can go when** lapin drops what it holds for a channel that is closed.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the messages that were given to lapin and are not on the wire yet.
#[derive(Debug, Default)]
pub(crate) struct Unwritten(AtomicUsize);

impl Unwritten {
    /// This many messages are given to lapin next.
    pub(crate) fn expect(&self, messages: usize) {
        self.0.store(messages, Ordering::Relaxed);
    }

    /// One of them is on the wire, or never will be.
    pub(crate) fn one_is_written(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}
