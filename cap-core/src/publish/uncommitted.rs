//! One message that waits for its commit.

use tokio::time::Instant;

use super::relay_queue::Place;
use crate::storage::{Lease, NewOutgoing};

/// One message that waits for its commit.
pub(super) struct Uncommitted {
    pub(super) row: NewOutgoing,
    /// The place in the relay's queue; a message without one waits in the store.
    pub(super) place: Option<Place>,
    /// No row is older: until a lease later nobody else can claim it.
    pub(super) since: Instant,
    /// Whether the row is part of the transaction for certain.
    pub(super) is_part: bool,
}

impl Uncommitted {
    /// The lease under which it was inserted.
    pub(super) fn lease(&self) -> Lease {
        Lease { id: self.row.id, epoch: 1 }
    }

    /// When it is due, if this node does not lease it.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        match (&self.place, self.row.delay) {
            (Some(_), None) => None,
            (_, delay) => self.since.checked_add(delay.unwrap_or_default()),
        }
    }
}
