//! The signal that there may be work.

use std::sync::Arc;

use super::row::Side;

/// A signal from the storage to the bus that there may be work, which makes polling unnecessary.
#[derive(Debug, Clone, Default)]
pub struct Wake {
    outbox: Arc<tokio::sync::Notify>,
    inbox: Arc<tokio::sync::Notify>,
}

impl Wake {
    /// Signals that rows may have become due on one side. Cheap, never blocks, and may be called more often than
    /// needed.
    pub fn wake(&self, side: Side) {
        match side {
            Side::Outbox => self.outbox.notify_one(),
            Side::Inbox => self.inbox.notify_one(),
        }
    }

    /// Waits for the signal, or returns at once if it was given since the last wait.
    pub async fn woken(&self, side: Side) {
        match side {
            Side::Outbox => self.outbox.notified().await,
            Side::Inbox => self.inbox.notified().await,
        }
    }
}
