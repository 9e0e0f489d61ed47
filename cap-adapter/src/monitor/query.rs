//! Which messages an operator asks for.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::message_state::MessageState;
use crate::message::IdGenerator;
use crate::message::headers::names;
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
    /// Only those of this full topic, as in [`Row::name`](super::Row::name): with its prefix, if it has one.
    pub topic: Option<String>,
    /// If a topic is given: those of this full topic as well.
    pub or_topic: Option<String>,
    /// Only those of this full group name. Only the inbox has groups.
    pub group: Option<String>,
    /// If a group is given: those of this full group name as well.
    pub or_group: Option<String>,
    /// Only those whose last error contains this text.
    pub error: Option<String>,
    /// Only those stored at this time or later, by the storage's clock. A message that waited longer than a day to be
    /// stored may be left out.
    pub since: Option<SystemTime>,
    /// Only those stored before this time, by the storage's clock.
    pub until: Option<SystemTime>,
    /// Only those in this state, as an operator sees it.
    pub state: Option<MessageState>,
    /// Only those with this message id, which storages look up in an index.
    pub message_id: Option<String>,
    /// Only those with this correlation id. Storages have no index for it.
    pub correlation_id: Option<String>,
    /// Only those that have this header, with exactly this value.
    pub header: Option<(String, String)>,
    /// Only those whose body contains these bytes.
    pub text: Option<Bytes>,
    /// Only those that this node is working on, or of which an attempt failed on it.
    pub node: Option<String>,
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
            or_topic: None,
            group: None,
            or_group: None,
            error: None,
            since: None,
            until: None,
            state: None,
            message_id: None,
            correlation_id: None,
            header: None,
            text: None,
            node: None,
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

    /// Only messages in this state.
    #[must_use]
    pub fn state(mut self, state: MessageState) -> Self {
        self.state = Some(state);
        self
    }

    /// Only messages with this message id.
    #[must_use]
    pub fn message_id(mut self, id: impl Into<String>) -> Self {
        self.message_id = Some(id.into());
        self
    }

    /// Only messages with this correlation id.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Only messages that have this header, with exactly this value.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.header = Some((name.into(), value.into()));
        self
    }

    /// Only messages whose body contains these bytes, exactly. JSON can write a character in several ways, such as `\u00e9`:
    /// only bodies that write it in the same way match.
    #[must_use]
    pub fn text(mut self, part: impl Into<Bytes>) -> Self {
        self.text = Some(part.into());
        self
    }

    /// Only messages that this node is working on, or of which an attempt failed on it.
    #[must_use]
    pub fn node(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
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

    /// The headers that a message must have to match, with their values: the one asked for, and the correlation id.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let correlation = self.correlation_id.as_deref().map(|id| (names::CORRELATION_ID, id));
        correlation.into_iter().chain(self.header.as_ref().map(|(name, value)| (&**name, &**value)))
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
