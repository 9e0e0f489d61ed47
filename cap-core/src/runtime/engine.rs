//! What every task of a bus needs: options, row ids, lifecycle, storage and broker.

use std::sync::Arc;

use crate::message::IdGenerator;
use crate::runtime::broker_client::BrokerClient;
use crate::runtime::lifecycle::Lifecycle;
use crate::runtime::notifier::{FailedMessage, Notifier};
use crate::runtime::options::CapOptions;
use crate::runtime::repeated_events::RepeatedEvents;
use crate::runtime::storage_client::StorageClient;

/// What every task of a bus needs. It knows nothing about the rooms above that use it.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) options: Arc<CapOptions>,
    /// Generates row ids.
    pub(crate) ids: Arc<IdGenerator>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) storage: StorageClient,
    pub(crate) broker: BrokerClient,
    pub(crate) notifier: Notifier,
    pub(crate) repeated: RepeatedEvents,
}

impl Engine {
    /// Notifies an operator that a message has failed for good.
    pub(crate) fn failed_for_good(&self, failed: FailedMessage) {
        self.notifier.failed_for_good(&self.storage.leases, &self.repeated, failed);
    }

    /// Notifies an operator of a message that is already in the log.
    pub(crate) fn notify(&self, failed: FailedMessage) {
        self.notifier.notify(&self.storage.leases, failed);
    }
}
