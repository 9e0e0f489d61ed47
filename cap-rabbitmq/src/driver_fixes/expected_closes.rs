//! The channels that the broker may close as an answer, so that [`log_filter`](super::log_filter) leaves that out.
//!
//! **Works around:** AMQP cannot ask whether something exists: if it does not, or was declared otherwise, the broker closes
//! the channel, and lapin logs that as an error on its own thread, although it returns it as an error too.
//! **Can go when** lapin does not log closings that a call returns.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::Channel;

/// The channels of one connection whose end is one of the answers. Shared with lapin's thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExpectedCloses(Arc<Mutex<HashSet<u16>>>);

impl ExpectedCloses {
    /// Waits for a call that the broker may answer by closing the channel. lapin logs the closing before the call returns,
    /// so that nothing is expected afterwards. Cancel safe: a closing that comes later is logged.
    pub(crate) async fn during<T>(&self, channel: &Channel, call: impl Future<Output = T>) -> T {
        self.lock().insert(channel.id());
        let _expected = Expected { closes: self, channel: channel.id() };
        call.await
    }

    pub(crate) fn contains(&self, channel: u16) -> bool {
        self.lock().contains(&channel)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<u16>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Expected<'a> {
    closes: &'a ExpectedCloses,
    channel: u16,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.closes.lock().remove(&self.channel);
    }
}
