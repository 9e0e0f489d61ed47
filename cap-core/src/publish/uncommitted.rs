//! A stored message whose transaction is not known to be committed yet.

use tokio::time::Instant;

use super::relay_queue::Place;
use crate::storage::{Lease, NewOutgoing};

/// A stored message whose transaction is not known to be committed yet.
pub(super) struct Uncommitted {
    pub(super) row: NewOutgoing,
    /// Its place in the relay's queue. A message without one waits in the storage to be claimed.
    pub(super) place: Option<Place>,
    /// The row was inserted no earlier than this. Until one lease later no other node can claim it.
    pub(super) since: Instant,
    /// Whether the row is certainly part of the transaction.
    pub(super) is_part: bool,
}

impl Uncommitted {
    /// The lease under which it was inserted.
    pub(super) fn lease(&self) -> Lease {
        Lease { id: self.row.id, epoch: 1 }
    }

    /// When the claims can take it; `None` if this node leases it.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        match (&self.place, self.row.delay) {
            (Some(_), None) => None,
            (_, delay) => self.since.checked_add(delay.unwrap_or_default()),
        }
    }
}
