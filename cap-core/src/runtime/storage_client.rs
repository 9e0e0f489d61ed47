//! The storage as the engine uses it: with the name of this node, its health, and the rows that this node leases.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{StorageError, StorageErrorKind};
use crate::runtime::due_times::DueTimes;
use crate::runtime::erased::DynStorage;
use crate::runtime::health::Tracker;
use crate::runtime::lease_book::LeaseBook;
use crate::storage::{Owner, Retention, Side};

/// The storage, and what this node knows of it. Dereferences to the storage's own methods.
pub(crate) struct StorageClient {
    storage: Arc<dyn DynStorage>,
    /// In whose name rows are leased, and for how long.
    pub(crate) owner: Owner,
    pub(crate) health: Tracker,
    /// The rows that this node leases.
    pub(crate) leases: LeaseBook,
    pub(crate) due: DueTimes,
    succeeded_expire_after: Duration,
}

impl StorageClient {
    /// `succeeded_expire_after` is how long messages that succeeded are kept.
    pub(crate) fn new(storage: Arc<dyn DynStorage>, owner: Owner, succeeded_expire_after: Duration) -> Self {
        Self {
            health: Tracker::new(storage.name()),
            storage,
            owner,
            leases: LeaseBook::default(),
            due: DueTimes::default(),
            succeeded_expire_after,
        }
    }

    /// The storage itself, to be shared with deliveries and with the thread that renews leases.
    pub(crate) fn shared(&self) -> &Arc<dyn DynStorage> {
        &self.storage
    }

    /// An error of the kind "unavailable", with this text.
    pub(crate) fn unavailable(&self, text: impl Into<String>) -> StorageError {
        StorageError::new(StorageErrorKind::Unavailable, self.storage.name(), text)
    }

    /// Has the claims look at a side at once: rows may have become due there.
    pub(crate) fn wake(&self, side: Side) {
        self.due.wake.wake(side);
    }

    /// What is kept of a message that succeeded. If it went straight through: only the message, which expires by its age.
    /// If it has failed before or has waited for long: a state row with an expiry of its own, since its age says little.
    pub(crate) fn retention(&self, attempts: u32, age: Duration) -> Retention {
        let keep = self.succeeded_expire_after;
        if keep.is_zero() {
            Retention::Delete
        } else if attempts == 0 && age < keep / 10 {
            Retention::Forget
        } else {
            Retention::Keep(keep)
        }
    }
}

impl Deref for StorageClient {
    type Target = dyn DynStorage;

    fn deref(&self) -> &Self::Target {
        &*self.storage
    }
}

impl std::fmt::Debug for StorageClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageClient").field("owner", &self.owner).finish_non_exhaustive()
    }
}
