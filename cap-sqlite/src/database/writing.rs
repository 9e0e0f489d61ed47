//! What all statements of one transaction have in common.

use cap_adapter::storage::Owner;
use cap_sql::columns::micros;

/// The parts of a transaction that do not change from row to row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writing<'a> {
    /// The node that writes.
    pub(crate) owner: &'a Owner,
    /// The time, in microseconds since 1970: all rows of a transaction have the same, and so are in the order of their ids.
    pub(crate) now: i64,
}

impl Writing<'_> {
    pub(crate) fn lease_end(&self) -> i64 {
        self.now + micros(self.owner.lease)
    }
}
