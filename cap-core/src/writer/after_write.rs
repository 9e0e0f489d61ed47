//! What follows in memory from rows that are written together with others' messages.

use tokio::time::Instant;

/// Messages that wait for rows to be written before they go on in memory. Dropped without a word, it looks for them itself
/// if they may be stored.
pub(crate) trait AfterWrite: Send + Sync {
    /// A write begins that may store the rows. It may not be the first one.
    fn trying(&mut self);

    /// The rows were stored by a write that began at this time, and no earlier.
    fn inserted(&mut self, since: Instant);

    /// The rows are stored for good.
    fn committed(self: Box<Self>);

    /// The rows are not stored, and never will be.
    fn not_committed(self: Box<Self>);
}
