//! The messages between the broker and an inbox, which no storage shows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_core::message::TopicPattern;

/// Counts the messages that the groups of a test have been sent and have not acknowledged. Shared by all buses of the test.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The topics of each group that consumes.
    groups: BTreeMap<Arc<str>, Vec<TopicPattern>>,
    /// How many copies of a message are on their way to a group.
    under_way: BTreeMap<(Arc<str>, String), usize>,
}

impl Traffic {
    pub(crate) fn consumes(&self, group: &Arc<str>, topics: &[TopicPattern]) {
        self.lock().groups.insert(Arc::clone(group), topics.to_vec());
    }

    /// A message is about to be sent to this topic.
    pub(crate) fn sending(&self, topic: &str, id: &str) {
        let mut inner = self.lock();
        for group in inner.groups_of(topic) {
            *inner.under_way.entry((group, id.to_owned())).or_default() += 1;
        }
    }

    /// The message was not sent after all.
    pub(crate) fn not_sent(&self, topic: &str, id: &str) {
        let mut inner = self.lock();
        for group in inner.groups_of(topic) {
            inner.arrived(&group, id);
        }
    }

    /// A group has stored and acknowledged a message.
    pub(crate) fn acknowledged(&self, group: &Arc<str>, id: &str) {
        self.lock().arrived(group, id);
    }

    /// What is under way, in words: empty if nothing is.
    pub(crate) fn under_way(&self) -> Vec<String> {
        let inner = self.lock();
        let words = inner.under_way.iter();
        words
            .map(|((group, id), copies)| format!("{copies} x {id} at the broker for group {group}"))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn groups_of(&self, topic: &str) -> Vec<Arc<str>> {
        let wants = |topics: &[TopicPattern]| topics.iter().any(|pattern| pattern.matches(topic));
        self.groups.iter().filter(|(_, topics)| wants(topics)).map(|(group, _)| Arc::clone(group)).collect()
    }

    fn arrived(&mut self, group: &Arc<str>, id: &str) {
        let key = (Arc::clone(group), id.to_owned());
        if let Some(copies) = self.under_way.get_mut(&key) {
            *copies -= 1;
            if *copies == 0 {
                self.under_way.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::parse(text).expect("a pattern")
    }

    #[test]
    fn a_message_is_under_way_to_each_group_that_wants_it() {
        let traffic = Traffic::default();
        let (stock, audit): (Arc<str>, Arc<str>) = ("stock".into(), "audit".into());
        traffic.consumes(&stock, &[pattern("order.placed")]);
        traffic.consumes(&audit, &[pattern("order.#")]);
        traffic.sending("order.placed", "1");
        traffic.sending("order.paid", "2");
        assert_eq!(traffic.under_way().len(), 3);
        traffic.acknowledged(&stock, "1");
        traffic.acknowledged(&audit, "1");
        traffic.not_sent("order.paid", "2");
        assert_eq!(traffic.under_way(), Vec::<String>::new());
        traffic.acknowledged(&audit, "1");
        assert_eq!(traffic.under_way(), Vec::<String>::new(), "a redelivery is acknowledged, too");
    }
}
