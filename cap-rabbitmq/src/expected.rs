//! Channels that the broker may close, since they ask it something whose answer may be no.
//!
//! AMQP has no question: what is not there, or is there otherwise, is told by the end of the channel, which lapin logs as
//! an error on its own thread. Where that is one of the answers, the log must not have it.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::Channel;

/// The channels of one connection whose end is one of the answers. Shared with lapin's thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExpectedCloses(Arc<Mutex<HashSet<u16>>>);

impl ExpectedCloses {
    /// Waits for a call whose answer may be that the broker closes the channel. lapin logs that before it answers, so
    /// nothing is expected any more afterwards. Cancel safe: a close that comes later is logged.
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
