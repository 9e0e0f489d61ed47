//! The reasons why a group stops receiving from its consumer.

use crate::error::{StorageError, TransportError};

/// Why a group has stopped receiving.
pub(super) enum Ended {
    /// Intake has stopped.
    WithIntake,
    /// The group's executor has ended although intake has not stopped.
    WithGroup,
    ByBroker(TransportError),
    /// The storage does not accept what is received.
    ByStorage(StorageError),
}

impl From<TransportError> for Ended {
    fn from(error: TransportError) -> Self {
        Self::ByBroker(error)
    }
}
