//! What an operator does at three in the morning: find the messages that failed for good, repair them, run them again.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use crate::error::{StorageError, StorageErrorKind};
use crate::monitor::{Among, Change, FailedAttempt, Query, Row};
use crate::publish::payload::serialize;
use crate::runtime::engine::Engine;
use crate::storage::{Reason, Side, Status};

/// So many messages are looked at in one call to the store. Only their ids are read.
const PAGE: usize = 500;

/// So many messages a list has, bodies and all, if nothing is said of it.
const LISTED: usize = 100;

/// The messages that wait for an operator: those that failed for good, and those that could not be read, or that nobody
/// handles; got by [`Cap::parked`](crate::Cap::parked). Received ones, unless [`published`](Self::published) is said.
///
/// Say which, then act: on some by their row ids, or on all that match. Every re-run is counted apart from the
/// automatic attempts, starts the retry policy anew, and adds a line to the header `cap-audit` of the stored message:
/// when, who, what. Every action is in the log as well, with the row ids. All methods fail only as the store does.
///
/// Whether a message is parked is asked at the moment of the action. One that somebody else has re-run meanwhile is left
/// alone, so that two people who run all again do it once, and nobody deletes what another has just repaired.
///
/// Two kinds are looked at only when they are asked for. What was [cancelled](crate::Cap::cancel) was meant to stay, and
/// matches only [`reason(Reason::Cancelled)`](Self::reason). Messages of other versions or services that share the store
/// are theirs: find them with [`BusMonitor`](crate::BusMonitor). Both can be re-run and deleted here by their row ids, if
/// they are parked; any node may do so, and a node that has the handler runs it.
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
    engine: Arc<Engine>,
    query: Query,
    limit: Option<usize>,
    by: String,
}

#[allow(clippy::missing_errors_doc)]
impl Parked {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        let query = Query::new(Side::Inbox)
            .status(Status::Failed)
            .without(Reason::Cancelled)
            .version(&*engine.storage.owner.version);
        Self { engine, query, limit: None, by: "somebody".to_owned() }
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

    /// Only messages of this topic, exactly and in full, as [`Row::name`] tells it: with `topic_prefix`, if there is
    /// one. A received message has the prefix of its sender.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.query.topic = Some(topic.into());
        self
    }

    /// Only messages of this full group name, exactly, as [`Row::group`] tells it: with the version.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.query.group = Some(group.into());
        self
    }

    /// Only messages parked for this reason. [`Reason::Cancelled`] gives those that were cancelled, which are left
    /// out otherwise.
    pub fn reason(mut self, reason: Reason) -> Self {
        self.query.reason = Some(reason);
        self.query.without = None;
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

    /// At most so many, the newest of those that match: in a list, a count, and in what is done to all. Default: a
    /// hundred in a list, no limit otherwise.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The page after the one that ended with this row id.
    pub fn before(mut self, id: i64) -> Self {
        self.query.before = Some(id);
        self
    }

    /// The messages, newest first, with their bodies: as many at once as the limit says.
    pub async fn list(&self) -> Result<Vec<Row>, StorageError> {
        let query = self.query.clone().limit(self.limit.unwrap_or(LISTED));
        self.engine.storage.list(&query).await
    }

    /// How many match, up to the limit.
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
        self.engine.storage.attempts(self.query.side, id).await
    }

    /// Runs these again, as far as they are parked, whatever their topic or reason. Gives back the ids for which it was
    /// done.
    pub async fn rerun(&self, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        self.rerun_with(ids, "re-ran it", None).await
    }

    /// Runs all that match again, up to the limit, and says how many.
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
        let body = serialize(payload).map_err(|error| {
            let text = format!("the new payload of row {id} cannot be serialized: {error}");
            StorageError::new(StorageErrorKind::Refused, self.engine.storage.name(), text)
        })?;
        self.edit_raw_and_rerun(id, body).await
    }

    /// As [`edit_and_rerun`](Self::edit_and_rerun), with the body as it is to be, which need not be JSON.
    pub async fn edit_raw_and_rerun(&self, id: i64, body: impl Into<Bytes>) -> Result<bool, StorageError> {
        let done = self.rerun_with(&[id], "edited and re-ran it", Some(body.into())).await?;
        Ok(!done.is_empty())
    }

    /// Deletes these, as far as they are parked, whatever their topic or reason. Gives back the ids for which it was
    /// done, which are in the log with who did it, and nowhere else. A received message that is deleted is handled anew
    /// should the broker deliver it again.
    pub async fn delete(&self, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let done = self.engine.storage.delete(self.query.side, ids, Among::Failed).await?;
        self.log("deleted it", &done);
        Ok(done)
    }

    /// Deletes all that match, up to the limit, and says how many.
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
        let done = self.engine.storage.rerun(side, ids, Among::Failed, &change).await?;
        self.log(what, &done);
        if !done.is_empty() {
            self.engine.storage.wake(side);
        }
        Ok(done)
    }

    /// What an operator did. Of a deletion nothing else is left.
    fn log(&self, what: &str, ids: &[i64]) {
        if !ids.is_empty() {
            tracing::info!(target: "cap_core::parked", by = self.by, what, side = ?self.query.side, count = ids.len(), ?ids, "by hand");
        }
    }

    fn pages(&self) -> Pages<'_> {
        Pages { engine: &self.engine, query: self.query.clone(), left: self.limit.unwrap_or(usize::MAX) }
    }
}

/// The ids of all that match, page by page, as many as are wanted.
struct Pages<'a> {
    engine: &'a Engine,
    query: Query,
    left: usize,
}

impl Pages<'_> {
    async fn next(&mut self) -> Result<Option<Vec<i64>>, StorageError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.query.limit = PAGE.min(self.left);
        let ids = self.engine.storage.list_ids(&self.query).await?;
        self.left = if ids.len() < self.query.limit { 0 } else { self.left - ids.len() };
        self.query.before = ids.last().copied().or(self.query.before);
        Ok((!ids.is_empty()).then_some(ids))
    }
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parked")
            .field("query", &self.query)
            .field("limit", &self.limit)
            .field("by", &self.by)
            .finish_non_exhaustive()
    }
}
