//! Names of topics and groups, and patterns.

use cap_core::message::{MAX_NAME_LENGTH, TopicPattern, validate_group, validate_topic};

use crate::{halves, text};

/// Any pattern against any topic.
pub fn topics(data: &[u8]) {
    let (pattern, topic) = halves(data);
    let (pattern, topic) = (text(pattern), text(topic));
    if validate_topic(&topic).is_ok() {
        assert!(topic.chars().count() <= MAX_NAME_LENGTH && topic.len() <= 255);
        let itself = TopicPattern::parse(&topic).is_ok_and(|pattern| pattern.matches(&topic));
        assert!(itself, "a topic that can be published to can be subscribed to: {topic:?}");
    }
    if validate_group(&topic).is_ok() {
        assert!(topic.len() <= 255, "a queue's name is a short string");
    }
    let Ok(parsed) = TopicPattern::parse(&pattern) else { return };
    assert_eq!(parsed.as_str(), pattern);
    assert_eq!(parsed.cmp(&parsed), std::cmp::Ordering::Equal);
    assert_eq!(parsed.matches(&topic), by_definition(&pattern, &topic), "{pattern:?} against {topic:?}");
}

/// AMQP's rule, word by word: which beginnings of the topic each beginning of the pattern matches.
fn by_definition(pattern: &str, topic: &str) -> bool {
    let words: Vec<&str> = topic.split('.').collect();
    let mut reached = vec![false; words.len() + 1];
    reached[0] = true;
    for part in pattern.split('.') {
        let mut next = vec![false; words.len() + 1];
        for taken in 0..=words.len() {
            next[taken] = match part {
                "#" => reached[..=taken].contains(&true),
                _ => taken > 0 && reached[taken - 1] && (part == "*" || part == words[taken - 1]),
            };
        }
        reached = next;
    }
    reached[words.len()]
}
