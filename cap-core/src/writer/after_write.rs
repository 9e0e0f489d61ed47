//! What happens in memory once published messages have been written.

use tokio::time::Instant;

/// Messages that continue in memory, on their way to the relay, once their rows are written. If it is dropped before
/// [`committed`](Self::committed) or [`not_committed`](Self::not_committed) is called and the rows may be stored, it looks
/// for them in the storage itself.
pub(crate) trait AfterWrite: Send + Sync {
    /// Called before each write that may store the rows; there may have been earlier ones.
    fn trying(&mut self);

    /// Called when the rows were stored by a write that began at this time, and not by an earlier one.
    fn inserted(&mut self, since: Instant);

    /// Called when the rows are committed.
    fn committed(self: Box<Self>);

    /// Called when the rows are not stored and never will be.
    fn not_committed(self: Box<Self>);
}
