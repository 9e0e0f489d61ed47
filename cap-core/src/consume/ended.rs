//! Why a group stops receiving from its consumer.

use crate::error::{StorageError, TransportError};

/// Why a consumption has ended.
pub(super) enum Ended {
    /// Intake has stopped.
    WithIntake,
    /// The group takes no more, though intake goes on.
    WithGroup,
    ByBroker(TransportError),
    /// The store does not take what comes.
    ByStore(StorageError),
}

impl From<TransportError> for Ended {
    fn from(error: TransportError) -> Self {
        Self::ByBroker(error)
    }
}
