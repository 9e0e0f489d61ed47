//! The tasks of a bus: every one is owned here, and joined when the bus ends.

use tokio_util::task::TaskTracker;

/// Every task of a bus, by the order in which they end.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    pub(crate) intake: TaskTracker,
    pub(crate) work: TaskTracker,
    pub(crate) relay: TaskTracker,
    pub(crate) writers: TaskTracker,
    pub(crate) upkeep: TaskTracker,
}

impl Tasks {
    /// Says that no more will be spawned, so that waiting can end.
    pub(crate) fn close(&self) {
        for tracker in [&self.intake, &self.work, &self.relay, &self.writers, &self.upkeep] {
            tracker.close();
        }
    }
}
