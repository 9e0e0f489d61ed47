//! Whether a connection has numbers left for new channels.
//!
//! **Works around:** lapin never uses the number of a channel again that the broker closed; it takes every later channel
//! of that number for the closed one. So a connection survives `channel_max` such closings only, and is then replaced.
//! **Can go when** lapin gives out these numbers again.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a connection can open more channels.
#[derive(Debug, Default)]
pub(crate) struct ChannelNumbers {
    used_up: AtomicBool,
}

impl ChannelNumbers {
    /// The connection has refused to open a channel.
    pub(crate) fn use_up(&self) {
        self.used_up.store(true, Ordering::Relaxed);
    }

    pub(crate) fn are_left(&self) -> bool {
        !self.used_up.load(Ordering::Relaxed)
    }
}
