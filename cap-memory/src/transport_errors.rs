//! The errors of the in-memory transport.

use cap_adapter::error::{TransportError, TransportErrorKind};

pub(super) const NAME: &str = "memory";

pub(super) fn away() -> TransportError {
    unavailable("the broker is unavailable (set_available(false))")
}

pub(super) fn unavailable(message: impl Into<String>) -> TransportError {
    TransportError::new(TransportErrorKind::Unavailable, NAME, message)
}

pub(super) fn refused(message: impl Into<String>) -> TransportError {
    TransportError::new(TransportErrorKind::Refused, NAME, message)
}
