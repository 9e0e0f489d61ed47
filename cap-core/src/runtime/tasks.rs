//! The tasks of a bus. All of them are owned here and joined when the bus ends.

use tokio_util::task::TaskTracker;

/// All tasks of a bus, in the order in which they end.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    pub(crate) intake: TaskTracker,
    pub(crate) work: TaskTracker,
    pub(crate) relay: TaskTracker,
    pub(crate) writers: TaskTracker,
    pub(crate) upkeep: TaskTracker,
}

impl Tasks {
    /// Closes all trackers: no more tasks will be spawned, so that waiting for them can end.
    pub(crate) fn close(&self) {
        for tracker in [&self.intake, &self.work, &self.relay, &self.writers, &self.upkeep] {
            tracker.close();
        }
    }
}
