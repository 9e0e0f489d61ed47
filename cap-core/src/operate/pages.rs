//! The row ids of a selection, page by page, so that acting on millions of messages takes no memory for them.

use crate::error::StorageError;
use crate::monitor::Query;
use crate::runtime::storage_client::StorageClient;

/// How many row ids are read in one call to the storage, and acted on in one.
const PAGE: usize = 500;

/// The row ids of all that match, newest first, up to a limit.
pub(super) struct Pages<'a> {
    storage: &'a StorageClient,
    query: Query,
    left: usize,
}

impl<'a> Pages<'a> {
    pub(super) fn new(storage: &'a StorageClient, query: Query, limit: Option<usize>) -> Self {
        Self { storage, query, left: limit.unwrap_or(usize::MAX) }
    }

    /// The next page, which is never empty; `None` after the last. Pages go down the row ids, so that a message that the
    /// caller has made due again, or that arrives meanwhile, is not met twice.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<i64>>, StorageError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.query.limit = PAGE.min(self.left);
        let ids = self.storage.list_ids(&self.query).await?;
        self.left = if ids.len() < self.query.limit { 0 } else { self.left - ids.len() };
        self.query.before = ids.last().copied().or(self.query.before);
        Ok((!ids.is_empty()).then_some(ids))
    }
}
