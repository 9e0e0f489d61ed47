//! The former operator API, until 0.2.

use std::fmt;
use std::sync::Arc;

use crate::error::StorageError;
use crate::monitor::{Among, Change, Count, FailedAttempt, Query, Row};
use crate::runtime::engine::Engine;
use crate::storage::Side;

/// The former API for stored messages: it covers all versions and does not record who acts. Every method fails only if the
/// storage does.
#[deprecated(note = "use Cap::messages")]
#[derive(Clone)]
pub struct BusMonitor(Arc<Engine>);

#[allow(deprecated, clippy::missing_errors_doc)]
impl BusMonitor {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self(engine)
    }

    /// The messages that match, newest first, with their bodies.
    pub async fn list(&self, query: &Query) -> Result<Vec<Row>, StorageError> {
        self.0.storage.list(query).await
    }

    /// The message with this row id.
    pub async fn get(&self, side: Side, id: i64) -> Result<Option<Row>, StorageError> {
        self.0.storage.get(side, id).await
    }

    /// All rows with this message id: at most one in the outbox, or one for each group in the inbox.
    pub async fn find(&self, side: Side, message_id: &str) -> Result<Vec<Row>, StorageError> {
        self.0.storage.find(side, message_id).await
    }

    /// The failed attempts of a message, first to last.
    pub async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        self.0.storage.attempts(side, id).await
    }

    /// Re-runs messages in any state, unless they are being published or handled. Their retry policies start anew; recorded
    /// attempts stay. Returns the row ids of the messages that were re-run.
    pub async fn rerun(&self, side: Side, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        let done = self.0.storage.rerun(side, ids, Among::All, &Change::default()).await?;
        if !done.is_empty() {
            tracing::info!(?side, count = done.len(), ids = ?done, "messages re-run by an operator");
            self.0.storage.wake(side);
        }
        Ok(done)
    }

    /// Deletes messages unless they are being published or handled. Returns the row ids of the deleted messages.
    pub async fn delete(&self, side: Side, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        let done = self.0.storage.delete(side, ids, Among::All).await?;
        if !done.is_empty() {
            tracing::info!(?side, count = done.len(), ids = ?done, "messages deleted by an operator");
        }
        Ok(done)
    }

    /// The same as [`Messages::counts`](crate::Messages::counts).
    pub async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        self.0.storage.counts().await
    }
}

#[allow(deprecated)]
impl fmt::Debug for BusMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BusMonitor")
    }
}
