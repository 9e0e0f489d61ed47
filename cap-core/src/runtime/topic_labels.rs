//! The values of the label `topic`, of which there is a bounded number in a process.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The most topics that a process names in its metrics. Each costs memory here, in the recorder and in every scrape.
const MOST_TOPICS: usize = 1000;
/// Stands for the topics beyond that.
pub(crate) const OTHER: &str = "other";

/// The topics that have a label of their own, of all buses of this process.
static NAMED: Mutex<Option<HashSet<Box<str>>>> = Mutex::new(None);

/// The label of a topic or of a topic pattern: itself, or [`OTHER`] if there are too many. Called once for each handle, not
/// for each message.
pub(crate) fn topic_label(topic: &str) -> &str {
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    named_in(named.get_or_insert_default(), topic)
}

fn named_in<'a>(named: &mut HashSet<Box<str>>, topic: &'a str) -> &'a str {
    if named.contains(topic) {
        return topic;
    }
    if named.len() >= MOST_TOPICS {
        return OTHER;
    }
    named.insert(topic.into());
    topic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thousand_topics_keep_their_names() {
        let mut named = HashSet::new();
        for number in 0..1000 {
            let topic = format!("topic.{number}");
            assert_eq!(named_in(&mut named, &topic), topic);
        }
        assert_eq!(named_in(&mut named, "one.more"), OTHER);
        assert_eq!(named_in(&mut named, "topic.0"), "topic.0");
        assert_eq!(named.len(), 1000);
    }
}
