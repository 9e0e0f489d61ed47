//! Operations for operators: find a message, list its attempts, re-run, cancel, delete.

mod audit;
mod change;
mod lag;
mod message_state;
mod query;
mod row;
mod search;

use std::future::Future;

use crate::error::StorageError;
use crate::storage::Side;
// For the documentation.
#[allow(unused_imports, reason = "the documentation links to them")]
use crate::storage::{Reason, Status};

pub use audit::{Act, NewAct};
pub use change::{Among, Change};
pub use lag::Lag;
pub use message_state::MessageState;
pub use query::Query;
pub use row::{BoundedCounts, Count, FailedAttempt, Row};
pub use search::{Bound, SearchLimits, SearchPage};

/// The part of a storage that serves operators. Every adapter implements it together with
/// [`Storage`](crate::storage::Storage).
pub trait Monitor: Send + Sync + 'static {
    /// Lists messages, newest first, with their bodies.
    fn list(&self, query: &Query) -> impl Future<Output = Result<Vec<Row>, StorageError>> + Send;

    /// The row ids that [`list`](Self::list) would return, in the same order. No body is read, so that a long page of
    /// large messages takes little memory.
    fn list_ids(&self, query: &Query) -> impl Future<Output = Result<Vec<i64>, StorageError>> + Send;

    /// Searches for messages, newest first, with their bodies, and stops when it has looked at as many rows, or taken as long,
    /// as the [limits](SearchLimits) allow. The page then says so, and where to continue; it may be empty although there are
    /// older messages that match.
    ///
    /// The default lists without a bound, for a storage where this is always cheap.
    fn search(
        &self,
        query: &Query,
        limits: &SearchLimits,
    ) -> impl Future<Output = Result<SearchPage, StorageError>> + Send {
        let _ = limits;
        async { Ok(SearchPage::listed(self.list(query).await?, query.limit)) }
    }

    /// One message by its row id.
    fn get(&self, side: Side, id: i64) -> impl Future<Output = Result<Option<Row>, StorageError>> + Send;

    /// All rows of a message id: one in the outbox, or one for each group in the inbox.
    fn find(
        &self,
        side: Side,
        message_id: &str,
    ) -> impl Future<Output = Result<Vec<Row>, StorageError>> + Send;

    /// The failed attempts of a message, first to last.
    fn attempts(
        &self,
        side: Side,
        id: i64,
    ) -> impl Future<Output = Result<Vec<FailedAttempt>, StorageError>> + Send;

    /// Makes rows due at once, all or the failed ones [among](Among) them, unless a node is working on them (they
    /// have an owner and `due` is in the future). A pending failure callback of a [failed](Status::Failed) row does
    /// not count as work. Failed attempts stay counted, but policies start over: the row gets [`Status::Scheduled`],
    /// no reason, no expiry, and one more re-run. A delayed message is published now. Returns the ids of the affected
    /// rows; other processes are woken too. The messages are changed in the same transaction by [`Change::apply`].
    fn rerun(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> impl Future<Output = Result<Vec<i64>, StorageError>> + Send;

    /// Cancels delayed messages: they get [`Status::Failed`] with [`Reason::Cancelled`] and are kept for `keep`.
    /// Returns the ids of the cancelled ones; a message that is no longer delayed is left alone.
    fn cancel(
        &self,
        ids: &[i64],
        keep: std::time::Duration,
    ) -> impl Future<Output = Result<Vec<i64>, StorageError>> + Send;

    /// Deletes messages with their state and attempts, all or the failed ones [among](Among) them, unless a node is
    /// working on them. Returns the ids of the deleted ones.
    fn delete(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
    ) -> impl Future<Output = Result<Vec<i64>, StorageError>> + Send;

    /// Counts like [`counts`](Self::counts), but at a cost that does not grow with the number of rows, for health
    /// probes. At most about `limit` rows of each kind are counted; if there are more, the counts are [lower
    /// bounds](BoundedCounts::is_capped). `None` if the storage is reachable but the count takes too long and was
    /// cancelled.
    ///
    /// The default returns the exact counts, for a storage where they are cheap.
    fn bounded_counts(
        &self,
        limit: u32,
    ) -> impl Future<Output = Result<Option<BoundedCounts>, StorageError>> + Send {
        let _ = limit;
        async { Ok(Some(BoundedCounts { counts: self.counts().await?, is_capped: false })) }
    }

    /// Records an act of an operator in the audit, with the time by the storage's clock, and deletes some acts that are older
    /// than [`NewAct::KEPT_FOR`].
    ///
    /// Optional: a storage without an audit ignores it.
    fn record(&self, act: &NewAct) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = act;
        async { Ok(()) }
    }

    /// The recorded acts, newest first, at most this many; with `before` only those with a smaller number.
    ///
    /// Optional: a storage without an audit has none.
    fn acts(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Act>, StorageError>> + Send {
        let _ = (before, limit);
        async { Ok(Vec::new()) }
    }

    /// The age of the oldest waiting message of the outbox and of each group, in no particular order, at a cost that grows
    /// with the number of groups and not with the number of messages. Without a waiting message there is no entry.
    ///
    /// A message waits while it is due and no node has a lease on it: a delayed message and one between two attempts wait
    /// from their due time. A failed message whose failure callback is due counts too.
    ///
    /// Optional: `None` from a storage that cannot tell.
    fn lags(&self) -> impl Future<Output = Result<Option<Vec<Lag>>, StorageError>> + Send {
        async { Ok(None) }
    }

    /// The exact number of state rows of each kind. [Cancelled](Reason::Cancelled) messages are not counted.
    fn counts(&self) -> impl Future<Output = Result<Vec<Count>, StorageError>> + Send;
}
