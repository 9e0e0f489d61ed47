//! What a person does at three in the morning: find the messages that failed for good, mend them, run them again.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use crate::context::Context;
use crate::error::{StorageError, StorageErrorKind};
use crate::monitor::{Among, Change, FailedAttempt, Query, Row};
use crate::storage::{Reason, Side, Status};
use crate::subscribe::serialise;

/// So many messages are looked at in one call to the store.
const PAGE: usize = 500;

/// The messages that wait for a person: those that failed for good, and those that could not be read, or that nobody
/// handles; got by [`Cap::parked`](crate::Cap::parked). Received ones, unless [`published`](Self::published) is said.
///
/// Say which, then act: on some by their row ids, or on all that match. Every re-run is counted apart from the
/// automatic attempts, starts the retry policy anew, and adds a line to the header `cap-audit` of the stored message:
/// when, who, what. Every action is in the log as well. A message that somebody works on right now is left alone. All
/// methods fail only as the store does.
///
/// ```
/// use cap_core::prelude::*;
///
/// async fn after_the_tax_office_is_back(cap: &Cap) -> Result<u64, cap_core::error::StorageError> {
///     let parked = cap.parked().by("alice").topic("invoice.wanted").error("connection refused");
///     for row in parked.list().await? {
///         println!("{} failed {} times: {:?}", row.id, row.attempts, row.last_error);
///     }
///     parked.rerun_all().await
/// }
/// ```
#[derive(Clone)]
#[must_use = "it only says which messages; .list() or .rerun_all() does something"]
pub struct Parked {
    context: Arc<Context>,
    query: Query,
    by: String,
}

#[allow(clippy::missing_errors_doc)]
impl Parked {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        let query = Query::new(Side::Inbox).status(Status::Failed);
        Self { context, query, by: "somebody".to_owned() }
    }

    /// Those that could not be published, instead of those received.
    pub fn published(mut self) -> Self {
        self.query.side = Side::Outbox;
        self
    }

    /// Who acts, for the record. Without it the record says that somebody did.
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.by = who.into();
        self
    }

    /// Only messages of this topic, exactly.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.query.topic = Some(topic.into());
        self
    }

    /// Only messages of this full group name, exactly.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.query.group = Some(group.into());
        self
    }

    /// Only messages parked for this reason.
    pub fn reason(mut self, reason: Reason) -> Self {
        self.query.reason = Some(reason);
        self
    }

    /// Only messages whose last error has this text in it, exactly as written.
    pub fn error(mut self, part: impl Into<String>) -> Self {
        self.query.error = Some(part.into());
        self
    }

    /// Only messages stored at this time or later.
    pub fn since(mut self, time: SystemTime) -> Self {
        self.query.since = Some(time);
        self
    }

    /// Only messages stored before this time.
    pub fn until(mut self, time: SystemTime) -> Self {
        self.query.until = Some(time);
        self
    }

    /// At most so many in one list. Default: a hundred.
    pub fn limit(mut self, limit: usize) -> Self {
        self.query.limit = limit;
        self
    }

    /// The page after the one that ended with this row id.
    pub fn before(mut self, id: i64) -> Self {
        self.query.before = Some(id);
        self
    }

    /// The messages, newest first.
    pub async fn list(&self) -> Result<Vec<Row>, StorageError> {
        self.context.storage.list(&self.query).await
    }

    /// How many match, whatever the limit.
    pub async fn count(&self) -> Result<u64, StorageError> {
        let mut pages = self.pages();
        let mut count = 0;
        while let Some(ids) = pages.next().await? {
            count += ids.len() as u64;
        }
        Ok(count)
    }

    /// The failed attempts of a message, first to last, each with its node, its error and what came next.
    pub async fn history(&self, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        self.context.storage.attempts(self.query.side, id).await
    }

    /// Runs these again, as far as they are parked. Gives back the ids for which it was done.
    pub async fn rerun(&self, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        self.rerun_with(ids, "re-ran it", None).await
    }

    /// Runs all that match again, and says how many.
    pub async fn rerun_all(&self) -> Result<u64, StorageError> {
        let mut pages = self.pages();
        let mut count = 0;
        while let Some(ids) = pages.next().await? {
            count += self.rerun_with(&ids, "re-ran it", None).await?.len() as u64;
        }
        Ok(count)
    }

    /// Replaces the payload of a parked message and runs it again. `false` if it is not parked, or somebody works on
    /// it.
    pub async fn edit_and_rerun<T: Serialize + ?Sized>(
        &self,
        id: i64,
        payload: &T,
    ) -> Result<bool, StorageError> {
        let body = serialise(payload).map_err(|error| {
            let text = format!("the new payload of row {id} cannot be serialised: {error}");
            StorageError::new(StorageErrorKind::Refused, self.context.storage.name(), text)
        })?;
        self.edit_raw_and_rerun(id, body).await
    }

    /// As [`edit_and_rerun`](Self::edit_and_rerun), with the body as it is to be, which need not be JSON.
    pub async fn edit_raw_and_rerun(&self, id: i64, body: impl Into<Bytes>) -> Result<bool, StorageError> {
        let done = self.rerun_with(&[id], "edited and re-ran it", Some(body.into())).await?;
        Ok(!done.is_empty())
    }

    /// Deletes these, as far as they are parked. Gives back the ids for which it was done. A received message that is
    /// deleted is handled anew should the broker deliver it again.
    pub async fn delete(&self, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let done = self.context.storage.delete(self.query.side, ids, Among::Failed).await?;
        self.log("deleted it", &done);
        Ok(done)
    }

    /// Deletes all that match, and says how many.
    pub async fn delete_all(&self) -> Result<u64, StorageError> {
        let mut pages = self.pages();
        let mut count = 0;
        while let Some(ids) = pages.next().await? {
            count += self.delete(&ids).await?.len() as u64;
        }
        Ok(count)
    }

    async fn rerun_with(
        &self,
        ids: &[i64],
        what: &str,
        body: Option<Bytes>,
    ) -> Result<Vec<i64>, StorageError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let when = humantime::format_rfc3339_seconds(SystemTime::now());
        let change = Change { audit: Some(format!("{when} {} {what}", self.by)), body };
        let side = self.query.side;
        let done = self.context.storage.rerun(side, ids, Among::Failed, &change).await?;
        self.log(what, &done);
        if !done.is_empty() {
            self.context.wake(side);
        }
        Ok(done)
    }

    /// What a person did. Of a deletion nothing else is left.
    fn log(&self, what: &str, ids: &[i64]) {
        if !ids.is_empty() {
            tracing::info!(by = self.by, what, side = ?self.query.side, count = ids.len(), ?ids, "by hand");
        }
    }

    fn pages(&self) -> Pages<'_> {
        Pages { context: &self.context, query: self.query.clone().limit(PAGE), last: false }
    }
}

/// The ids of all that match, page by page, however many there are.
struct Pages<'a> {
    context: &'a Context,
    query: Query,
    last: bool,
}

impl Pages<'_> {
    async fn next(&mut self) -> Result<Option<Vec<i64>>, StorageError> {
        if self.last {
            return Ok(None);
        }
        let ids: Vec<i64> = self.context.storage.list(&self.query).await?.iter().map(|row| row.id).collect();
        self.last = ids.len() < PAGE;
        self.query.before = ids.last().copied().or(self.query.before);
        Ok((!ids.is_empty()).then_some(ids))
    }
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parked").field("query", &self.query).field("by", &self.by).finish_non_exhaustive()
    }
}
