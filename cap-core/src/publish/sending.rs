//! The result of sending a message to the broker, or to the groups of this process.

use std::time::Duration;

use crate::error::TransportError;
use crate::transport::Sent;

/// What happened to a message that was to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taken {
    Sent(Sent),
    /// It is released to the storage for this long, and no attempt is counted.
    Later(Duration),
}

pub(super) type Answer = Result<Taken, TransportError>;
