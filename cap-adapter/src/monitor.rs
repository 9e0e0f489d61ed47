//! Operations for operators: find a message, list its attempts, re-run, cancel, delete.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

pub use crate::audit::{Act, NewAct};
use crate::error::StorageError;
use crate::message::headers::names;
use crate::message::{IdGenerator, Message};
use crate::storage::{Reason, Side, Status};

/// A query for messages, newest first. The default selects all messages, a hundred at a time.
#[derive(Debug, Clone)]
pub struct Query {
    /// Which table.
    pub side: Side,
    /// Only those of this status.
    pub status: Option<Status>,
    /// Only those with this reason.
    pub reason: Option<Reason>,
    /// Only those without this reason.
    pub without: Option<Reason>,
    /// Only those of this bus version. If unset, those of all versions and services that share the storage.
    pub version: Option<String>,
    /// Only those of this full topic, as in [`Row::name`]: with its prefix, if it has one.
    pub topic: Option<String>,
    /// Only those of this full group name. Only the inbox has groups.
    pub group: Option<String>,
    /// Only those whose last error contains this text.
    pub error: Option<String>,
    /// Only those stored at this time or later, by the storage's clock. A message that waited longer than a day to be
    /// stored may be left out.
    pub since: Option<SystemTime>,
    /// Only those stored before this time, by the storage's clock.
    pub until: Option<SystemTime>,
    /// Only those with a smaller row id: the last id of the previous page.
    pub before: Option<i64>,
    /// The maximum number.
    pub limit: usize,
}

impl Query {
    /// Selects everything in one table.
    #[must_use]
    pub fn new(side: Side) -> Self {
        Self {
            side,
            status: None,
            reason: None,
            without: None,
            version: None,
            topic: None,
            group: None,
            error: None,
            since: None,
            until: None,
            before: None,
            limit: 100,
        }
    }

    /// Only messages of this status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Only messages with this reason.
    #[must_use]
    pub fn reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Only messages without this reason.
    #[must_use]
    pub fn without(mut self, reason: Reason) -> Self {
        self.without = Some(reason);
        self
    }

    /// Only messages of this bus version.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Only messages of this full topic: with its prefix, if it has one.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Only messages of this full group name.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Only messages whose last error contains this text, case-sensitive.
    #[must_use]
    pub fn error(mut self, part: impl Into<String>) -> Self {
        self.error = Some(part.into());
        self
    }

    /// Only messages stored at this time or later.
    #[must_use]
    pub fn since(mut self, time: SystemTime) -> Self {
        self.since = Some(time);
        self
    }

    /// Only messages stored before this time.
    #[must_use]
    pub fn until(mut self, time: SystemTime) -> Self {
        self.until = Some(time);
        self
    }

    /// The page after the one that ended with this row id.
    #[must_use]
    pub fn before(mut self, id: i64) -> Self {
        self.before = Some(id);
        self
    }

    /// The maximum number.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// The range of row ids that can match. It lets storages avoid a scan of the whole table: row ids increase with
    /// the time at which they were generated, by the clock of the generating node. So the range is wider than the
    /// times, which a storage must still compare.
    #[must_use]
    pub fn row_ids(&self) -> Range<i64> {
        let made_from = |since: SystemTime| since.checked_sub(STORED_WITHIN + CLOCKS_DIFFER_BY);
        let made_until = |until: SystemTime| until.checked_add(CLOCKS_DIFFER_BY);
        let first = self.since.and_then(made_from).map_or(i64::MIN, IdGenerator::first_id_at);
        let end = self.until.and_then(made_until).map_or(i64::MAX, IdGenerator::first_id_at);
        first..end.min(self.before.unwrap_or(i64::MAX))
    }
}

/// The longest time from the generation of a row id to its insert: a received message waits while the storage is
/// unavailable.
const STORED_WITHIN: Duration = Duration::from_hours(24);

/// How far a node's clock may differ from the storage's.
const CLOCKS_DIFFER_BY: Duration = Duration::from_hours(1);

/// A message as an operator sees it.
#[derive(Debug, Clone)]
pub struct Row {
    /// The row's id, which identifies it in every action.
    pub id: i64,
    /// Which table it is in.
    pub side: Side,
    /// The bus version it belongs to.
    pub version: String,
    /// The topic; empty if the delivery had none.
    pub name: String,
    /// The receiving group; empty for the outbox.
    pub group: Arc<str>,
    /// The message.
    pub message: Arc<Message>,
    /// Its status.
    pub status: Status,
    /// The reason for the status, if there is one.
    pub reason: Option<Reason>,
    /// The number of failed attempts.
    pub attempts: u32,
    /// How many times an operator re-ran it.
    pub reruns: u32,
    /// The last error, also after a later success.
    pub last_error: Option<String>,
    /// When it was stored, by the storage's clock.
    pub added: SystemTime,
    /// When it is due next; the end of the lease while a node is working on it.
    pub due: Option<SystemTime>,
    /// When it will be deleted, if that is known already.
    pub expires: Option<SystemTime>,
    /// The node that is working on it.
    pub owner: Option<String>,
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The number of the attempt, from 1.
    pub number: u32,
    /// When it ended, by the storage's clock.
    pub at: SystemTime,
    /// The node that made it.
    pub node: String,
    /// The error.
    pub error: String,
    /// When the next attempt was due; `None` if it was the last one.
    pub next: Option<SystemTime>,
}

/// Which of the named rows an action applies to.
///
/// Another operator may act between the listing and the action. A storage checks the row again under its lock, in the
/// transaction of the action, so that of two operators who re-run the same failure only one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// All of them, whatever their state.
    All,
    /// Those that are [`Status::Failed`] at that moment.
    Failed,
}

/// The changes that an operator makes to stored messages when re-running them. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// A line with operator, action and time, which is added to the header `cap-audit`. That header is never sent.
    pub audit: Option<String>,
    /// The new body.
    pub body: Option<Bytes>,
}

impl Change {
    /// The number of lines kept in the header `cap-audit`, the latest ones.
    pub const AUDIT_LINES: usize = 20;

    /// Whether there is no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.audit.is_none() && self.body.is_none()
    }

    /// The message after the change. Storages replace the old one by it.
    #[must_use]
    pub fn apply(&self, message: &Message) -> Message {
        let mut changed = message.clone();
        if let Some(line) = &self.audit {
            let line = line.replace(['\n', '\0'], " ");
            let before = message.headers.get(names::AUDIT);
            let mut lines: Vec<&str> = before.into_iter().flat_map(str::lines).collect();
            lines.push(&line);
            let first = lines.len().saturating_sub(Self::AUDIT_LINES);
            changed.headers.insert(names::AUDIT, lines[first..].join("\n"));
        }
        if let Some(body) = &self.body {
            changed.body = body.clone();
        }
        changed
    }
}

/// The number of messages of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Which table.
    pub side: Side,
    /// The receiving group; empty for the outbox.
    pub group: String,
    /// Their status. Messages that succeeded at the first attempt and cancelled ones are not counted.
    pub status: Status,
    /// How many.
    pub count: u64,
}

/// Counts that cost the same however many rows there are; see [`Monitor::bounded_counts`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BoundedCounts {
    /// The number of messages of each kind, or a lower bound of it.
    pub counts: Vec<Count>,
    /// Whether not all rows were counted: each count is then a lower bound, and a kind with few rows may be missing.
    pub is_capped: bool,
}

/// The part of a storage that serves operators. Every adapter implements it together with
/// [`Storage`](crate::storage::Storage).
pub trait Monitor: Send + Sync + 'static {
    /// Lists messages, newest first, with their bodies.
    fn list(&self, query: &Query) -> impl Future<Output = Result<Vec<Row>, StorageError>> + Send;

    /// The row ids that [`list`](Self::list) would return, in the same order. No body is read, so that a long page of
    /// large messages takes little memory.
    fn list_ids(&self, query: &Query) -> impl Future<Output = Result<Vec<i64>, StorageError>> + Send;

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

    /// The exact number of state rows of each kind. [Cancelled](Reason::Cancelled) messages are not counted.
    fn counts(&self) -> impl Future<Output = Result<Vec<Count>, StorageError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn times_bound_the_row_ids_with_room_for_clocks_and_outages() {
        let now = SystemTime::now();
        let (made_at, all) = (IdGenerator::first_id_at, || Query::new(Side::Inbox));
        assert_eq!(all().row_ids(), i64::MIN..i64::MAX);
        assert_eq!(all().before(7).row_ids(), i64::MIN..7);
        let since = all().since(now).row_ids();
        assert!(since.contains(&made_at(now)) && since.contains(&made_at(now - 24 * HOUR)));
        assert!(!since.contains(&made_at(now - 26 * HOUR)), "older ones are not looked at");
        let until = all().until(now).row_ids();
        assert!(until.contains(&made_at(now)) && until.contains(&1));
        assert!(!until.contains(&made_at(now + 2 * HOUR)), "newer ones are not looked at");
        assert_eq!(all().until(now).before(7).row_ids().end, 7);
        let ancient = SystemTime::UNIX_EPOCH;
        assert!(all().since(ancient).row_ids().contains(&1), "times before any id");
        assert!(all().until(ancient).row_ids().is_empty() || all().until(ancient).row_ids().end <= 0);
    }
}
