//! What an operator may ask of a store, and do: find a message, see its attempts, re-run, cancel, delete.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::error::StorageError;
use crate::message::headers::names;
use crate::message::{IdGenerator, Message};
use crate::storage::{Reason, Side, Status};

/// Which messages to list, newest first. The default asks for everything, a hundred at a time.
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
    /// Only those of this bus version. Without it those of every version and service that share the store.
    pub version: Option<String>,
    /// Only those of this topic, exactly and in full, as [`Row::name`] tells it: with its prefix, if it has one.
    pub topic: Option<String>,
    /// Only those of this full group name, exactly. Only the inbox has groups.
    pub group: Option<String>,
    /// Only those whose last error has this text in it, exactly.
    pub error: Option<String>,
    /// Only those stored at this time or later, by the store's clock. One that had to wait for longer than a day until it
    /// could be stored may be left out.
    pub since: Option<SystemTime>,
    /// Only those stored before this time, by the store's clock.
    pub until: Option<SystemTime>,
    /// Only those whose row id is smaller: the last id of the page before.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

impl Query {
    /// Everything in one table.
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

    /// Only messages of this topic, in full: with its prefix, if it has one.
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

    /// Only messages whose last error has this text in it, exactly as written.
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

    /// At most so many.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Among which row ids the messages are that can match. For stores, which need not go through a whole table to find
    /// few: row ids rise with the time at which they were made, by the clock of the node that made them. So the range is
    /// wider than the times, which a store must still compare.
    #[must_use]
    pub fn row_ids(&self) -> Range<i64> {
        let made_from = |since: SystemTime| since.checked_sub(STORED_WITHIN + CLOCKS_DIFFER_BY);
        let made_until = |until: SystemTime| until.checked_add(CLOCKS_DIFFER_BY);
        let first = self.since.and_then(made_from).map_or(i64::MIN, IdGenerator::first_id_at);
        let end = self.until.and_then(made_until).map_or(i64::MAX, IdGenerator::first_id_at);
        first..end.min(self.before.unwrap_or(i64::MAX))
    }
}

/// So long after its row id was made a message is stored at the latest: a received one waits while the store is away.
const STORED_WITHIN: Duration = Duration::from_hours(24);

/// How far a node's clock may be from the store's.
const CLOCKS_DIFFER_BY: Duration = Duration::from_hours(1);

/// A message as an operator sees it.
#[derive(Debug, Clone)]
pub struct Row {
    /// The row's id, by which every action names it.
    pub id: i64,
    /// Which table it is in.
    pub side: Side,
    /// The bus version it belongs to.
    pub version: String,
    /// The topic; empty if the delivery named none.
    pub name: String,
    /// The receiving group; empty for the outbox.
    pub group: Arc<str>,
    /// The message.
    pub message: Arc<Message>,
    /// Where it stands.
    pub status: Status,
    /// Why, where there is something to say.
    pub reason: Option<Reason>,
    /// Attempts that failed.
    pub attempts: u32,
    /// How many times an operator re-ran it.
    pub reruns: u32,
    /// The last error, also after a later success.
    pub last_error: Option<String>,
    /// When it was stored, by the store's clock.
    pub added: SystemTime,
    /// When it is due next; the end of the lease while somebody works on it.
    pub due: Option<SystemTime>,
    /// When it will be deleted, where that is fixed already.
    pub expires: Option<SystemTime>,
    /// The node that works on it.
    pub owner: Option<String>,
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Which attempt it was, from 1.
    pub number: u32,
    /// When it ended, by the store's clock.
    pub at: SystemTime,
    /// The node that made it.
    pub node: String,
    /// What went wrong.
    pub error: String,
    /// When the next attempt was due then; `None` if there was to be none.
    pub next: Option<SystemTime>,
}

/// Which of the rows that an action names it is for.
///
/// Between the look at a list and the action somebody else may have acted. A store looks at the row again under its
/// lock, in the transaction of the action, so that of two people who re-run the same failure only one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// All of them, whatever their state.
    All,
    /// Those that are [`Status::Failed`] at that moment.
    Failed,
}

/// What an operator changes in stored messages as they re-run them. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// A line that says who did what and when. It is added to the header `cap-audit`, which is never sent.
    pub audit: Option<String>,
    /// The new body.
    pub body: Option<Bytes>,
}

impl Change {
    /// So many lines of the header `cap-audit` are kept, the latest.
    pub const AUDIT_LINES: usize = 20;

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.audit.is_none() && self.body.is_none()
    }

    /// The message as it is after the change. For stores, which write it in the place of the old one.
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

/// How many messages there are of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Which table.
    pub side: Side,
    /// The receiving group; empty for the outbox.
    pub group: String,
    /// Where they stand. Messages that succeeded at once, and those that were cancelled, are not counted.
    pub status: Status,
    /// How many.
    pub count: u64,
}

/// Counts that cost the same however many rows there are; see [`Monitor::bounded_counts`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BoundedCounts {
    /// How many messages there are of each kind, or at least so many.
    pub counts: Vec<Count>,
    /// Not all rows were looked at: each count is a lower bound, and a kind with few rows may be missing.
    pub is_capped: bool,
}

/// The part of a store that serves people. Every adapter implements it beside [`Storage`](crate::storage::Storage).
pub trait Monitor: Send + Sync + 'static {
    /// Lists messages, newest first, with their bodies.
    fn list(&self, query: &Query) -> impl Future<Output = Result<Vec<Row>, StorageError>> + Send;

    /// The row ids of what [`list`](Self::list) would give, in its order. No body is read, so that a long page of large
    /// messages takes no memory.
    fn list_ids(&self, query: &Query) -> impl Future<Output = Result<Vec<i64>, StorageError>> + Send;

    /// One message by its row id.
    fn get(&self, side: Side, id: i64) -> impl Future<Output = Result<Option<Row>, StorageError>> + Send;

    /// Every row of a message id: one in the outbox, or one for each group in the inbox.
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

    /// Makes rows due at once, all or those [among](Among) them that failed, unless somebody works on them right now
    /// (they have an owner and `due` lies in the future). That an operator is still being told of a
    /// [failure](Status::Failed) is not work. Failed attempts stay counted, but policies start anew: the row gets
    /// [`Status::Scheduled`], no reason, no expiry, one re-run more. A delayed message is published now. Gives
    /// back the ids for which it was done; other processes are woken too. The messages are changed in the same
    /// transaction, as [`Change::apply`] says.
    fn rerun(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> impl Future<Output = Result<Vec<i64>, StorageError>> + Send;

    /// Calls delayed messages off: [`Status::Failed`] with [`Reason::Cancelled`], kept for `keep`. Gives back the
    /// ids for which it was done; one that is not delayed any more is left alone.
    fn cancel(
        &self,
        ids: &[i64],
        keep: std::time::Duration,
    ) -> impl Future<Output = Result<Vec<i64>, StorageError>> + Send;

    /// Deletes messages with their state and attempts, all or those [among](Among) them that failed, unless somebody
    /// works on them right now. Gives back the ids for which it was done.
    fn delete(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
    ) -> impl Future<Output = Result<Vec<i64>, StorageError>> + Send;

    /// Counts as [`counts`](Self::counts) does, but at a cost that does not grow with the number of rows: for a health
    /// probe. Of each kind no more than about `limit` rows are looked at; if there are more, the counts are
    /// [lower bounds](BoundedCounts::is_capped). `None` if the storage answers but the count takes too long; the storage
    /// then ends it.
    ///
    /// By default the exact counts, for a storage to which they cost little.
    fn bounded_counts(
        &self,
        limit: u32,
    ) -> impl Future<Output = Result<Option<BoundedCounts>, StorageError>> + Send {
        let _ = limit;
        async { Ok(Some(BoundedCounts { counts: self.counts().await?, is_capped: false })) }
    }

    /// How many state rows there are of each kind, exactly. What was [cancelled](Reason::Cancelled) waits for nothing and
    /// nobody, and is not counted.
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
