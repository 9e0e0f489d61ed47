//! What the broker, or the groups of this process, say of a message that was sent.

use std::time::Duration;

use crate::error::TransportError;
use crate::transport::Sent;

/// What has become of a message that was to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taken {
    Sent(Sent),
    /// It goes back to the store for so long, and nothing is counted.
    Later(Duration),
}

pub(super) type Answer = Result<Taken, TransportError>;
