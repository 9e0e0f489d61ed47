//! The storage as the engine uses it: the adapter, its health, the name of this node, and the rows that this node leases.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{StorageError, StorageErrorKind};
use crate::runtime::due_times::DueTimes;
use crate::runtime::erased::DynStorage;
use crate::runtime::health::Tracker;
use crate::runtime::lease_book::LeaseBook;
use crate::storage::{Owner, Retention, Side};

/// The storage, together with what this node knows about it. Dereferences to the storage's own methods.
pub(crate) struct StorageClient {
    storage: Arc<dyn DynStorage>,
    /// Who leases rows, and for how long.
    pub(crate) owner: Owner,
    pub(crate) health: Tracker,
    /// The rows that this node leases.
    pub(crate) leases: LeaseBook,
    pub(crate) due: DueTimes,
    succeeded_expire_after: Duration,
}

impl StorageClient {
    /// Wraps a storage. `succeeded_expire_after` is how long messages that succeeded are kept.
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

    /// The storage itself, shared with deliveries and with the thread that renews leases.
    pub(crate) fn shared(&self) -> &Arc<dyn DynStorage> {
        &self.storage
    }

    /// Creates an error of the kind "unavailable" with this text.
    pub(crate) fn unavailable(&self, text: impl Into<String>) -> StorageError {
        StorageError::new(StorageErrorKind::Unavailable, self.storage.name(), text)
    }

    /// Requests a claim on a side at once: rows may have become due there.
    pub(crate) fn wake(&self, side: Side) {
        self.due.wake.wake(side);
    }

    /// What to keep of a message that succeeded. If it succeeded at once, only the message is kept, and it expires by its
    /// age. If it failed before or waited for long, a state row with an expiry time of its own is kept, since the age of
    /// the message says little about when it succeeded.
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
