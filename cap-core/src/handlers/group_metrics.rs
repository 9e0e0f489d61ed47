//! Counts what a group receives and handles, with handles that are made once for each group and subscription.

use std::sync::OnceLock;
use std::time::SystemTime;

use metrics::{Counter, Histogram, SharedString, counter, histogram};
use tokio::time::Instant;

use crate::message::Message;
use crate::runtime::metric_names as names;
use crate::runtime::publish_time::published_at;
use crate::runtime::topic_labels::{OTHER, topic_label};

/// The metrics of one group. Its handles are made when they are first used.
pub(crate) struct GroupMetrics {
    group: String,
    handles: OnceLock<GroupHandles>,
    members: Vec<(String, OnceLock<MemberMetrics>)>,
    /// Messages of topics that no handler of the group subscribes to.
    unhandled: OnceLock<MemberMetrics>,
}

struct GroupHandles {
    received: Counter,
    duplicates: Counter,
    id_conflicts: Counter,
    copies_refused: Counter,
    batch_size: Histogram,
}

/// The metrics of one subscription.
pub(crate) struct MemberMetrics {
    handled: Counter,
    pub(crate) failed: Counter,
    pub(crate) parked: Counter,
    pub(crate) rejected: Counter,
    pub(crate) callbacks_refused: Counter,
    pub(crate) circuit_opened: Counter,
    duration: Histogram,
    publish_to_handled: Histogram,
}

impl GroupMetrics {
    /// The metrics of a group with these topic patterns, in the order of its members.
    pub(crate) fn new(group: &str, patterns: impl IntoIterator<Item = String>) -> Self {
        Self {
            group: group.to_owned(),
            handles: OnceLock::new(),
            members: patterns.into_iter().map(|pattern| (pattern, OnceLock::new())).collect(),
            unhandled: OnceLock::new(),
        }
    }

    /// The metrics of a subscription; without one, those of messages that no subscription is for.
    pub(crate) fn member(&self, member: Option<usize>) -> &MemberMetrics {
        match member.and_then(|index| self.members.get(index)) {
            Some((pattern, metrics)) => metrics.get_or_init(|| MemberMetrics::new(&self.group, pattern)),
            None => self.unhandled.get_or_init(|| MemberMetrics::new(&self.group, OTHER)),
        }
    }

    /// Counts a batch of deliveries.
    pub(crate) fn received(&self, messages: usize) {
        let handles = self.handles();
        handles.received.increment(messages as u64);
        handles.batch_size.record(u32::try_from(messages).unwrap_or(u32::MAX));
    }

    pub(crate) fn duplicate(&self) {
        self.handles().duplicates.increment(1);
    }

    pub(crate) fn id_conflict(&self) {
        self.handles().id_conflicts.increment(1);
    }

    pub(crate) fn copy_refused(&self) {
        self.handles().copies_refused.increment(1);
    }

    /// Records how long an attempt took that has just ended.
    pub(crate) fn attempted(&self, member: usize, begun: Instant) {
        self.member(Some(member)).duration.record(begun.elapsed());
    }

    /// Counts a success, and records how long ago the message was published, if that is known.
    pub(crate) fn handled(&self, member: usize, message: &Message) {
        let metrics = self.member(Some(member));
        metrics.handled.increment(1);
        if let Some(published) = published_at(message) {
            let took = SystemTime::now().duration_since(published).unwrap_or_default();
            metrics.publish_to_handled.record(took);
        }
    }

    fn handles(&self) -> &GroupHandles {
        self.handles.get_or_init(|| {
            let group = SharedString::from(self.group.clone());
            GroupHandles {
                received: counter!(names::RECEIVED, "group" => group.clone()),
                duplicates: counter!(names::DUPLICATES, "group" => group.clone()),
                id_conflicts: counter!(names::ID_CONFLICTS, "group" => group.clone()),
                copies_refused: counter!(names::RETRY_COPIES_REFUSED, "group" => group),
                batch_size: histogram!(names::BATCH_SIZE, "operation" => "receive"),
            }
        })
    }
}

impl MemberMetrics {
    fn new(group: &str, pattern: &str) -> Self {
        let topic = SharedString::from(topic_label(pattern).to_owned());
        let group = SharedString::from(group.to_owned());
        let count = |name| counter!(name, "topic" => topic.clone(), "group" => group.clone());
        let measure = |name| histogram!(name, "topic" => topic.clone(), "group" => group.clone());
        Self {
            handled: count(names::HANDLED),
            failed: count(names::HANDLER_FAILED),
            parked: count(names::PARKED),
            rejected: count(names::REJECTED),
            callbacks_refused: count(names::CALLBACKS_REFUSED),
            circuit_opened: count(names::CIRCUIT_OPENED),
            duration: measure(names::HANDLE_DURATION),
            publish_to_handled: measure(names::PUBLISH_TO_HANDLED),
        }
    }
}
