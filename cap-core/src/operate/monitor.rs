//! The operator's view of a bus: its stored messages, and what can be done about them.

use std::fmt;
use std::sync::Arc;

use crate::error::StorageError;
use crate::monitor::{Among, Change, Count, FailedAttempt, Query, Row};
use crate::runtime::engine::Engine;
use crate::storage::Side;

/// Looks at the stored messages of a bus and acts on them, whatever the store; got by
/// [`Cap::monitor`](crate::Cap::monitor). Every method fails only as the store does.
///
/// It sees the whole store, with the messages of other versions and services that share it, unless
/// [`Query::version`] says whose are wanted. Nothing is done to messages but by their row ids, so that nobody acts on
/// another's without having named them.
///
/// Message ids are the senders' (`cap-msg-id`); row ids are this store's own, and what actions go by.
#[derive(Clone)]
pub struct BusMonitor(Arc<Engine>);

#[allow(clippy::missing_errors_doc)]
impl BusMonitor {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self(engine)
    }

    /// Lists messages, newest first, with their bodies: as much memory is taken as [`Query::limit`] allows.
    pub async fn list(&self, query: &Query) -> Result<Vec<Row>, StorageError> {
        self.0.storage.list(query).await
    }

    /// One message by its row id.
    pub async fn get(&self, side: Side, id: i64) -> Result<Option<Row>, StorageError> {
        self.0.storage.get(side, id).await
    }

    /// Every row of a message id: one in the outbox, or one for each group in the inbox.
    pub async fn find(&self, side: Side, message_id: &str) -> Result<Vec<Row>, StorageError> {
        self.0.storage.find(side, message_id).await
    }

    /// The failed attempts of a message, first to last.
    pub async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        self.0.storage.attempts(side, id).await
    }

    /// Publishes or handles messages again, whatever their state, unless somebody works on them right now. Retry
    /// policies start anew; recorded attempts stay. Who did it is recorded only by [`Parked`](crate::Parked). Gives back
    /// the row ids for which it was done.
    pub async fn rerun(&self, side: Side, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        let done = self.0.storage.rerun(side, ids, Among::All, &Change::default()).await?;
        if !done.is_empty() {
            tracing::info!(?side, count = done.len(), ids = ?done, "re-run by hand");
            self.0.storage.wake(side);
        }
        Ok(done)
    }

    /// Deletes messages unless somebody works on them right now. Gives back the row ids for which it was done. A
    /// message deleted from the inbox is handled anew should it be delivered again.
    pub async fn delete(&self, side: Side, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        let done = self.0.storage.delete(side, ids, Among::All).await?;
        if !done.is_empty() {
            tracing::info!(?side, count = done.len(), ids = ?done, "deleted by hand");
        }
        Ok(done)
    }

    /// How many messages there are of each side, group and status, of all versions, exactly: every row is counted, which
    /// takes seconds where there are millions. [`Cap::health`](crate::Cap::health) counts at a fixed cost. Those that
    /// succeeded at once, and those that were cancelled, are not counted.
    pub async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        self.0.storage.counts().await
    }
}

impl fmt::Debug for BusMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BusMonitor")
    }
}
