//! A batch of inserts and outcomes, and its results.

use super::insert::{NewIncoming, NewOutgoing, Stored};
use super::outcome::RowCompletion;

/// A batch of inserts and outcomes, written in one call and one transaction.
///
/// The order within each list is kept where it is visible (ids, recorded attempts).
#[derive(Debug, Default)]
pub struct WriteBatch {
    /// New rows of the outbox.
    pub outgoing: Vec<NewOutgoing>,
    /// New rows of the inbox.
    pub incoming: Vec<NewIncoming>,
    /// Outcomes of outbox rows.
    pub completed_outgoing: Vec<RowCompletion>,
    /// Outcomes of inbox rows.
    pub completed_incoming: Vec<RowCompletion>,
}

impl WriteBatch {
    /// The number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outgoing.len()
            + self.incoming.len()
            + self.completed_outgoing.len()
            + self.completed_incoming.len()
    }

    /// Whether there are no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The results of a [`WriteBatch`], item by item in the same order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WriteReport {
    /// For each of [`WriteBatch::outgoing`].
    pub outgoing: Vec<Stored>,
    /// For each of [`WriteBatch::incoming`].
    pub incoming: Vec<Stored>,
    /// For each of [`WriteBatch::completed_outgoing`]: whether the lease was valid and the outcome was applied.
    pub completed_outgoing: Vec<bool>,
    /// For each of [`WriteBatch::completed_incoming`].
    pub completed_incoming: Vec<bool>,
}
