//! What an error means for the bus that comes from the driver and not from the database.

use std::time::Duration;

use cap_adapter::error::StorageErrorKind;

/// The error when no answer came in time: whether the call took effect is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAnswer(pub Duration);

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

/// Returns the kind of an error that is the driver's own. What is not known here is an outage: the message is then kept and
/// tried again, and an operator reads the log.
#[must_use]
pub fn kind_of_driver_error(error: &sqlx::Error) -> StorageErrorKind {
    use sqlx::Error;
    match error {
        Error::Encode(_) | Error::InvalidArgument(_) => StorageErrorKind::Refused,
        Error::Configuration(_)
        | Error::TypeNotFound { .. }
        | Error::ColumnIndexOutOfBounds { .. }
        | Error::ColumnNotFound(_)
        | Error::ColumnDecode { .. }
        | Error::Decode(_) => StorageErrorKind::Unusable,
        _ => StorageErrorKind::Unavailable,
    }
}
