//! The storage as operators' calls use it: of a running bus, or alone.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::engine::Engine;
use crate::runtime::erased::DynStorage;
use crate::runtime::options::CapOptions;
use crate::storage::Wake;

/// A storage with what an operator's calls need besides it. Dereferences to the storage's own methods.
#[derive(Clone)]
pub(crate) struct OperatedStorage {
    pub(super) storage: Arc<dyn DynStorage>,
    /// The version whose messages a selection contains at first.
    pub(super) version: Arc<str>,
    /// How long a cancelled message is kept.
    pub(super) keep_cancelled: Duration,
    /// The names of the bus, of which an operator need not write the prefix and the version. `None` without a bus.
    pub(super) naming: Option<Arc<CapOptions>>,
    /// Wakes the claims of this process's bus. Without a bus nobody waits for it.
    pub(super) wake: Wake,
}

impl OperatedStorage {
    pub(crate) fn of(engine: &Engine) -> Self {
        Self {
            storage: Arc::clone(engine.storage.shared()),
            version: Arc::clone(&engine.storage.owner.version),
            keep_cancelled: engine.options.failed_expire_after,
            naming: Some(Arc::clone(&engine.options)),
            wake: engine.storage.due.wake.clone(),
        }
    }
}

impl Deref for OperatedStorage {
    type Target = dyn DynStorage;

    fn deref(&self) -> &Self::Target {
        &*self.storage
    }
}
