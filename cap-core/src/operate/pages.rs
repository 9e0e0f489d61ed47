//! The row ids of a selection, page by page, so that acting on millions of messages takes no memory for them.

use super::operated_storage::OperatedStorage;
use crate::error::StorageError;
use crate::monitor::Query;

/// How many row ids are read in one call to the storage, and passed to one call of an action.
const PAGE_SIZE: usize = 500;

/// The row ids of all messages that match, newest first, up to a limit.
pub(super) struct Pages<'a> {
    storage: &'a OperatedStorage,
    query: Query,
    left: usize,
}

impl<'a> Pages<'a> {
    pub(super) fn new(storage: &'a OperatedStorage, query: Query, limit: Option<usize>) -> Self {
        Self { storage, query, left: limit.unwrap_or(usize::MAX) }
    }

    /// Reads the next page, which is never empty; `None` after the last one. Pages are in descending order of row ids, so
    /// that a message that the caller has re-run, or that arrives meanwhile, is not returned again.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<i64>>, StorageError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.query.limit = PAGE_SIZE.min(self.left);
        let ids = self.storage.list_ids(&self.query).await?;
        self.left = if ids.len() < self.query.limit { 0 } else { self.left - ids.len() };
        self.query.before = ids.last().copied().or(self.query.before);
        Ok((!ids.is_empty()).then_some(ids))
    }
}
