//! Counts published and sent messages by topic, with handles that are made once for each topic.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::{Counter, Histogram, counter, histogram};
use tokio::time::Instant;

use crate::runtime::metric_names as names;
use crate::runtime::topic_labels::{OTHER, topic_label};

/// The metrics of the outbox of one bus.
#[derive(Default)]
pub(crate) struct OutgoingMetrics {
    topics: Mutex<Topics>,
    batches: OnceLock<BatchMetrics>,
}

#[derive(Default)]
struct Topics {
    /// The topic that was asked for last: messages of one topic come together.
    last: Option<Arc<TopicMetrics>>,
    /// At most as many as there are labels.
    all: HashMap<Box<str>, Arc<TopicMetrics>>,
}

struct BatchMetrics {
    duration: Histogram,
    size: Histogram,
}

/// The counters of one topic.
pub(crate) struct TopicMetrics {
    label: Box<str>,
    pub(crate) published: Counter,
    pub(crate) sent: Counter,
    pub(crate) unrouted: Counter,
    pub(crate) failed: Counter,
    pub(crate) rejected: Counter,
    pub(crate) parked: Counter,
}

impl TopicMetrics {
    fn labelled(label: &str) -> Self {
        let topic: Box<str> = label.into();
        let label = metrics::SharedString::from(label.to_owned());
        Self {
            label: topic,
            published: counter!(names::PUBLISHED, "topic" => label.clone()),
            sent: counter!(names::SENT, "topic" => label.clone()),
            unrouted: counter!(names::UNROUTED, "topic" => label.clone()),
            failed: counter!(names::PUBLISH_FAILED, "topic" => label.clone()),
            rejected: counter!(names::REJECTED, "topic" => label.clone(), "group" => ""),
            parked: counter!(names::PARKED, "topic" => label, "group" => ""),
        }
    }
}

impl OutgoingMetrics {
    /// The counters of a topic.
    pub(crate) fn of(&self, topic: Option<&str>) -> Arc<TopicMetrics> {
        let topic = topic.unwrap_or(OTHER);
        let mut topics = self.lock();
        if let Some(last) = topics.last.as_ref().filter(|last| *last.label == *topic) {
            return Arc::clone(last);
        }
        let found = topics.find(topic);
        topics.last = Some(Arc::clone(&found));
        found
    }

    /// Records that a batch was handed to the broker at this time, and that all of its confirms are there.
    pub(crate) fn batch_sent(&self, size: usize, begun: Instant) {
        let batches = self.batches.get_or_init(|| BatchMetrics {
            duration: histogram!(names::SEND_DURATION),
            size: histogram!(names::BATCH_SIZE, "operation" => "send"),
        });
        batches.duration.record(begun.elapsed());
        batches.size.record(u32::try_from(size).unwrap_or(u32::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topics {
    fn find(&mut self, topic: &str) -> Arc<TopicMetrics> {
        if let Some(found) = self.all.get(topic) {
            return Arc::clone(found);
        }
        // What has no label of its own gets no entry of its own, so that the map stays bounded.
        let label = topic_label(topic);
        if let Some(found) = self.all.get(label) {
            return Arc::clone(found);
        }
        let made = Arc::new(TopicMetrics::labelled(label));
        self.all.insert(label.into(), Arc::clone(&made));
        made
    }
}
