//! Topics: the rules for names, and patterns that match them.
//!
//! The rules are AMQP's on every transport: words are separated by dots, `*` matches exactly one word, `#` any number
//! of words, including none.

use std::cmp::Ordering;
use std::fmt;

use super::name_error::NameError;

/// The longest topic or group name, in characters, including prefix and version: the size of CAP's columns.
pub const MAX_NAME_LENGTH: usize = 200;

/// Checks the name of a topic to publish to.
///
/// # Errors
///
/// When it is empty, longer than [`MAX_NAME_LENGTH`], has an empty word, white space or a control character, or
/// holds a wildcard.
///
/// ```
/// assert!(cap_core::message::validate_topic("order.created").is_ok());
/// assert!(cap_core::message::validate_topic("order.*").is_err());
/// ```
pub fn validate_topic(topic: &str) -> Result<(), NameError> {
    validate_words("topic", topic)?;
    match topic.split('.').find(|word| word.contains(['*', '#'])) {
        Some(_) => Err(NameError::new("topic", topic, "has a wildcard; only subscriptions may have one")),
        None => Ok(()),
    }
}

/// Checks the name of a group.
///
/// # Errors
///
/// Like [`validate_topic`], except that the characters `*` and `#` are rejected anywhere.
pub fn validate_group(group: &str) -> Result<(), NameError> {
    validate_words("group", group)?;
    if group.contains(['*', '#']) {
        return Err(NameError::new("group", group, "has a wildcard character"));
    }
    Ok(())
}

fn validate_words(kind: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::new(kind, name, "is empty"));
    }
    let length = name.chars().count();
    if length > MAX_NAME_LENGTH {
        return Err(NameError::new(
            kind,
            name,
            format!("has {length} characters; at most {MAX_NAME_LENGTH} are allowed"),
        ));
    }
    // AMQP carries a routing key or a queue name as a short string.
    if name.len() > 255 {
        return Err(NameError::new(
            kind,
            name,
            format!("takes {} bytes; at most 255 are allowed", name.len()),
        ));
    }
    if let Some(bad) = name.chars().find(|c| c.is_control() || c.is_whitespace()) {
        return Err(NameError::new(kind, name, format!("has the character {bad:?}")));
    }
    if name.split('.').any(str::is_empty) {
        return Err(NameError::new(kind, name, "has an empty word: a dot at an end, or two in a row"));
    }
    Ok(())
}

/// A topic to subscribe to: a plain name, or a name with the wildcards `*` and `#` as whole words.
///
/// Patterns are ordered by how specific they are, the most specific first: a plain word before `*`, `*` before
/// `#`, from the left. Where several patterns of one group match a message, the first in that order gets it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TopicPattern {
    text: String,
}

impl TopicPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    ///
    /// Like [`validate_topic`], except that a word may be `*` or `#`. A wildcard inside a word is rejected, since
    /// brokers take it literally.
    ///
    /// ```
    /// use cap_core::message::TopicPattern;
    ///
    /// let pattern = TopicPattern::parse("order.*.paid.#").unwrap();
    /// assert!(pattern.matches("order.7.paid"));
    /// assert!(pattern.matches("order.7.paid.by.card"));
    /// assert!(!pattern.matches("order.paid"));
    /// ```
    pub fn parse(text: &str) -> Result<Self, NameError> {
        validate_words("topic", text)?;
        if let Some(word) = text.split('.').find(|word| word.len() > 1 && word.contains(['*', '#'])) {
            return Err(NameError::new(
                "topic",
                text,
                format!("has a wildcard inside the word {word:?}; it must be a word of its own"),
            ));
        }
        Ok(Self { text: text.to_owned() })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern contains a wildcard.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.text.contains(['*', '#'])
    }

    /// Whether a topic matches this pattern.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if !self.has_wildcard() {
            return self.text == topic;
        }
        let pattern: Vec<&str> = self.text.split('.').collect();
        let words: Vec<&str> = topic.split('.').collect();
        words_match(&pattern, &words)
    }
}

/// Matches by remembering the position of the last `#`: on a mismatch that `#` takes one more word. Memory is linear,
/// and time at worst proportional to pattern times topic, for any input.
fn words_match(pattern: &[&str], words: &[&str]) -> bool {
    let (mut p, mut w) = (0, 0);
    let mut last_hash: Option<(usize, usize)> = None;
    while w < words.len() {
        match pattern.get(p) {
            Some(&"#") => {
                last_hash = Some((p, w));
                p += 1;
            }
            Some(&"*") => {
                p += 1;
                w += 1;
            }
            Some(word) if *word == words[w] => {
                p += 1;
                w += 1;
            }
            _ => match last_hash {
                Some((hash, taken)) => {
                    last_hash = Some((hash, taken + 1));
                    p = hash + 1;
                    w = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|word| *word == "#")
}

fn rank(word: &str) -> u8 {
    match word {
        "#" => 2,
        "*" => 1,
        _ => 0,
    }
}

impl Ord for TopicPattern {
    fn cmp(&self, other: &Self) -> Ordering {
        let mine = self.text.split('.').map(rank);
        let theirs = other.text.split('.').map(rank);
        mine.cmp(theirs).then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for TopicPattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicPattern({})", self.text)
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(pattern: &str, topic: &str, expected: bool) {
        assert_eq!(
            TopicPattern::parse(pattern).unwrap().matches(topic),
            expected,
            "{pattern} against {topic}"
        );
    }

    #[test]
    fn wildcards_follow_amqp() {
        check("*.foo", "a1.foo", true);
        check("*.foo", "a-b.foo", true);
        check("*.foo", "x.y.foo", false);
        check("foo.#", "foo", true);
        check("foo.#", "foo.a_b.c", true);
        check("#", "anything.at.all", true);
        check("#.foo", "foo", true);
        check("#.foo", "a.foo.foo", true);
        check("a.*.#", "a", false);
        check("a.*.#", "a.b", true);
        check("a.#.b.#.c", "a.b.x.b.c", true);
        check("a.#.b.#.c", "a.c", false);
        check("order", "order.created", false);
        check("Order", "order", false);
    }

    #[test]
    fn the_most_specific_pattern_comes_first() {
        let mut patterns: Vec<_> = ["#", "order.#", "order.*", "order.created", "*.created"]
            .map(|text| TopicPattern::parse(text).unwrap())
            .into();
        patterns.sort();
        let sorted: Vec<_> = patterns.iter().map(TopicPattern::as_str).collect();
        assert_eq!(sorted, ["order.created", "order.*", "order.#", "*.created", "#"]);
    }

    #[test]
    fn bad_names_are_refused_with_a_reason() {
        let long = "x".repeat(201);
        for (name, reason) in [
            ("", "empty"),
            ("a..b", "empty word"),
            (".a", "empty word"),
            ("a b", "character ' '"),
            ("a\nb", "character '\\n'"),
            ("a*", "inside the word"),
            (long.as_str(), "201 characters"),
        ] {
            let error = TopicPattern::parse(name).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(validate_topic("a.*").unwrap_err().to_string().contains("wildcard"));
        assert!(validate_group("g.#").is_err());
        assert!(validate_topic(&"x".repeat(200)).is_ok());
    }

    /// The definition of AMQP's rule, as plain recursion.
    fn reference(pattern: &[&str], words: &[&str]) -> bool {
        match (pattern.split_first(), words.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => {
                reference(rest, words)
                    || words.split_first().is_some_and(|(_, tail)| reference(pattern, tail))
            }
            (Some((&p, rest)), Some((&w, tail))) => (p == "*" || p == w) && reference(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "#"]), 1..6),
            words in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..7),
        ) {
            let parsed = TopicPattern::parse(&pattern.join(".")).unwrap();
            prop_assert_eq!(parsed.matches(&words.join(".")), reference(&pattern, &words));
        }
    }
}
