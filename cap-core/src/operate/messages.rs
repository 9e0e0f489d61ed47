//! Selecting stored messages for an operator, and reading them.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;

use super::operated_storage::OperatedStorage;
use super::pages::Pages;
use crate::error::StorageError;
use crate::monitor::{Count, FailedAttempt, MessageState, Query, Row, SearchLimits, SearchPage};
use crate::storage::{Reason, Side, Status};

/// The most messages that a list returns, bodies included, without [`Messages::limit`].
const DEFAULT_LIST_LIMIT: usize = 100;

/// A selection of stored messages, to read them and to act on them; see [`Cap::messages`](crate::Cap::messages).
///
/// Initially it contains the messages that this bus's version has received, in any state. Filters narrow it:
/// [`parked`](Self::parked) to those that failed for good and need an operator, others by topic, group, status, reason,
/// error, time, state, ids, header, body and node. [`published`](Self::published) selects the outbox instead of the inbox. Each kind of filter has one
/// value; the last one set applies.
///
/// ```
/// use cap_core::prelude::*;
///
/// async fn after_the_tax_office_is_back(cap: &Cap) -> Result<u64, cap_core::error::StorageError> {
///     let parked = cap.messages().parked().by("alice").topic("invoice.wanted").error("connection refused");
///     for row in parked.list().await? {
///         println!("{} failed {} times: {:?}", row.id, row.attempts, row.last_error);
///     }
///     parked.rerun_all().await
/// }
/// ```
///
/// # What a filter applies to
///
/// [`list`](Self::list), [`count`](Self::count), [`rerun_all`](Self::rerun_all) and [`delete_all`](Self::delete_all) apply
/// to the messages that match. Methods that take an id apply to that message whatever its topic, reason or version, so that
/// a list can be shown in pages and acted on by row ids. For these only the side counts and, if the selection is of
/// [parked](Self::parked) messages, whether the message is still parked when the action is performed. Row ids are the
/// storage's; message ids are the senders' (`cap-msg-id`).
///
/// # Actions
///
/// Actions skip messages that are being published or handled at that moment. If the selection is of failed messages
/// ([`parked`](Self::parked), or [`status(Status::Failed)`](Self::status)), they also skip a message that is no longer failed
/// when the action is performed: if two operators re-run all messages, each is re-run once, and an operator does not delete
/// a message that another one has just re-run. Other selections act on messages in any state: a re-run handles or publishes
/// a message again although it succeeded, and publishes a delayed message now.
///
/// Every action is recorded with the name set by [`by`](Self::by): a re-run adds a line to the header `cap-audit` of the
/// stored message (when, who, what; the last 20 are kept), and each call that had an effect logs who, what and the row ids
/// under the target `cap_core::parked` and records it in the storage's audit
/// ([`Operator::acts`](crate::Operator::acts)), an edit with the former body.
///
/// # Errors
///
/// All methods fail only if the storage does, except that [`rerun_all`](Self::rerun_all) and
/// [`delete_all`](Self::delete_all) reject a selection without any filter.
#[derive(Clone)]
#[must_use = "a selection does nothing by itself; call .list(), .rerun_all() or the like"]
pub struct Messages {
    pub(super) storage: OperatedStorage,
    pub(super) query: Query,
    pub(super) limit: Option<usize>,
    pub(super) by: String,
}

/// Filters.
impl Messages {
    pub(crate) fn new(storage: OperatedStorage) -> Self {
        let query = Query::new(Side::Inbox).version(&*storage.version);
        Self { storage, query, limit: None, by: "somebody".to_owned() }
    }

    /// Received messages: the inbox. The default.
    pub fn received(self) -> Self {
        self.side(Side::Inbox)
    }

    /// Published messages: the outbox.
    pub fn published(self) -> Self {
        self.side(Side::Outbox)
    }

    /// Messages of this side, such as [`Failure::side`](crate::Failure::side).
    pub fn side(mut self, side: Side) -> Self {
        self.query.side = side;
        self
    }

    /// Only messages that failed for good and need an operator: their attempts are used up, they cannot be decoded, or no
    /// handler or queue takes them. Messages that were [cancelled](crate::Cap::cancel) are not included unless
    /// [`reason(Reason::Cancelled)`](Self::reason) is set.
    pub fn parked(mut self) -> Self {
        self.query.status = Some(Status::Failed);
        self.query.without = self.query.reason.is_none().then_some(Reason::Cancelled);
        self
    }

    /// Only messages of this status. Unlike [`parked`](Self::parked), `Status::Failed` includes cancelled messages.
    pub fn status(mut self, status: Status) -> Self {
        self.query.status = Some(status);
        self.query.without = None;
        self
    }

    /// Only messages with this reason.
    pub fn reason(mut self, reason: Reason) -> Self {
        self.query.reason = Some(reason);
        self.query.without = None;
        self
    }

    /// Only messages of this topic, as in [`Row::name`]: written in full, or as handlers and publishers of this bus write it,
    /// without its `topic_prefix`. If there are messages of both topics, both are included. A received message has the prefix
    /// of its sender. An [`Operator`](crate::Operator) that was opened without a bus knows no prefix.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        let topic = topic.into();
        self.query.or_topic = self.storage.naming.as_ref().map(|options| options.full_topic(&topic));
        self.query.topic = Some(topic);
        self
    }

    /// Only messages of this group, as in [`Row::group`]: written in full, or as handlers of this bus write it, without
    /// `group_prefix` and version. Published messages have no group. An [`Operator`](crate::Operator) that was opened without
    /// a bus knows no prefix.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        let group = group.into();
        self.query.or_group = self.storage.naming.as_ref().map(|options| options.full_group(Some(&group)));
        self.query.group = Some(group);
        self
    }

    /// Only messages whose last error contains this text, exactly as written.
    pub fn error(mut self, part: impl Into<String>) -> Self {
        self.query.error = Some(part.into());
        self
    }

    /// Only messages stored at this time or later, by the storage's clock. A message that waited for longer than a day
    /// before it could be stored may be missing.
    pub fn since(mut self, time: SystemTime) -> Self {
        self.query.since = Some(time);
        self
    }

    /// Only messages stored before this time, by the storage's clock.
    pub fn until(mut self, time: SystemTime) -> Self {
        self.query.until = Some(time);
        self
    }

    /// Only messages in this state, as an operator sees it: unlike [`status`](Self::status), it tells what a node has leased from
    /// what waits, and what is parked from what was cancelled.
    pub fn state(mut self, state: MessageState) -> Self {
        self.query.state = Some(state);
        self
    }

    /// Only messages with this message id (`cap-msg-id`): one in the outbox, or one for each group in the inbox.
    pub fn message_id(mut self, id: impl Into<String>) -> Self {
        self.query.message_id = Some(id.into());
        self
    }

    /// Only messages with this correlation id (`cap-corr-id`). Storages have no index for it, so a [`search`](Self::search)
    /// among many messages should have a time too.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.query.correlation_id = Some(id.into());
        self
    }

    /// Only messages that have this header, with exactly this value.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.header = Some((name.into(), value.into()));
        self
    }

    /// Only messages whose stored body contains these bytes, exactly as written.
    pub fn text(mut self, part: impl Into<Bytes>) -> Self {
        self.query.text = Some(part.into());
        self
    }

    /// Only messages that this node is working on, or of which an attempt failed on it.
    pub fn node(mut self, node: impl Into<String>) -> Self {
        self.query.node = Some(node.into());
        self
    }

    /// Only messages of this version, instead of the bus's own.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.query.version = Some(version.into());
        self
    }

    /// Messages of every version and service that share the storage. Any node can re-run them; one that has the handler
    /// handles them.
    pub fn all_versions(mut self) -> Self {
        self.query.version = None;
        self
    }

    /// Only messages before this row id: the next page after the one that ended with it.
    pub fn before(mut self, id: i64) -> Self {
        self.query.before = Some(id);
        self
    }

    /// At most this many messages, the newest that match: in a list, in a count, and for actions on all. Default: 100 in a
    /// list, otherwise no limit.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sets who acts, for the record. Default: `somebody`.
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.by = who.into();
        self
    }

    pub(super) fn pages(&self) -> Pages<'_> {
        Pages::new(&self.storage, self.query.clone(), self.limit)
    }
}

/// Reading.
#[allow(clippy::missing_errors_doc, reason = "the type says how all of them fail")]
impl Messages {
    /// The messages that match, newest first, with their bodies, up to the limit. All of them are in memory together.
    pub async fn list(&self) -> Result<Vec<Row>, StorageError> {
        let query = self.query.clone().limit(self.limit.unwrap_or(DEFAULT_LIST_LIMIT));
        self.storage.list(&query).await
    }

    /// The messages that match, newest first, with their bodies, up to the limit, found in bounded time: among millions of
    /// messages it stops at 200,000 rows or after 2 seconds, says so in [`SearchPage::bound`], and continues where
    /// [`before`](Self::before) is set to [`SearchPage::next`]. With a [message id](Self::message_id) it uses an index.
    pub async fn search(&self) -> Result<SearchPage, StorageError> {
        self.search_within(&SearchLimits::default()).await
    }

    /// [Searches](Self::search) within other limits.
    pub async fn search_within(&self, limits: &SearchLimits) -> Result<SearchPage, StorageError> {
        let query = self.query.clone().limit(self.limit.unwrap_or(DEFAULT_LIST_LIMIT));
        self.storage.search(&query, limits).await
    }

    /// The row ids of the messages that match, newest first, up to the limit. No body is read.
    pub async fn ids(&self) -> Result<Vec<i64>, StorageError> {
        let query = self.query.clone().limit(self.limit.unwrap_or(DEFAULT_LIST_LIMIT));
        self.storage.list_ids(&query).await
    }

    /// How many messages match, up to the limit. Reads the row id of each.
    pub async fn count(&self) -> Result<u64, StorageError> {
        let mut pages = self.pages();
        let mut count = 0;
        while let Some(ids) = pages.next().await? {
            count += ids.len() as u64;
        }
        Ok(count)
    }

    /// The message with this row id.
    pub async fn get(&self, id: i64) -> Result<Option<Row>, StorageError> {
        self.storage.get(self.query.side, id).await
    }

    /// All rows with this message id: at most one in the outbox, or one for each group in the inbox.
    pub async fn find(&self, message_id: &str) -> Result<Vec<Row>, StorageError> {
        self.storage.find(self.query.side, message_id).await
    }

    /// The failed attempts of the message with this row id, first to last, each with its node, its error and when the next
    /// one was due.
    pub async fn attempts(&self, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        self.storage.attempts(self.query.side, id).await
    }

    /// The former name of [`attempts`](Self::attempts).
    #[deprecated(note = "renamed to attempts")]
    pub async fn history(&self, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        self.attempts(id).await
    }

    /// How many messages there are by side, group and status, of all versions and regardless of the filters. The numbers are
    /// exact: every row is counted, which takes seconds if there are millions. [`Cap::health`](crate::Cap::health) counts at a fixed cost.
    /// Messages that succeeded at the first attempt, and those that were cancelled, are not counted.
    pub async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        self.storage.counts().await
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("query", &self.query)
            .field("limit", &self.limit)
            .field("by", &self.by)
            .finish_non_exhaustive()
    }
}
