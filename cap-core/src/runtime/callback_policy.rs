//! Where replies may be sent: a sender names the topic, and this service's rights at the broker are used to publish there.

use serde::{Deserialize, Serialize};

use crate::message::TopicPattern;

/// What happens to a message whose `cap-callback-name` is not among the topics that
/// [`callbacks_to`](crate::CapOptions::callbacks_to) allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackNotAllowed {
    /// It is parked before its handler runs, with
    /// [`Reason::CallbackNotAllowed`](crate::storage::Reason::CallbackNotAllowed). A re-run checks again.
    #[default]
    Park,
    /// It is handled, and no reply is sent; a warning is logged.
    Drop,
}

/// The rules for the replies of one subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallbackPolicy {
    /// The topics, as they are sent, that a sender may have replies go to; `None` for any.
    pub(crate) allowed: Option<Vec<TopicPattern>>,
    pub(crate) refused: CallbackNotAllowed,
    /// Whether `()` is a reply, with an empty body.
    pub(crate) reply_to_unit: bool,
}

impl CallbackPolicy {
    /// Whether a sender may have replies go to this topic, as it is sent.
    pub(crate) fn allows(&self, topic: &str) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|pattern| pattern.matches(topic)))
    }

    /// Whether a message that asks for a reply to this topic is not to be handled.
    pub(crate) fn parks(&self, topic: &str) -> bool {
        self.refused == CallbackNotAllowed::Park && !self.allows(topic)
    }
}

/// Reads the patterns of `callbacks_to`.
///
/// # Errors
///
/// What is wrong with the first that is none.
pub(crate) fn callback_patterns<T: AsRef<str>>(patterns: &[T]) -> Result<Vec<TopicPattern>, String> {
    let parsed = patterns.iter().map(|pattern| TopicPattern::parse(pattern.as_ref()));
    parsed.collect::<Result<_, _>>().map_err(|error| format!("callbacks_to: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_subscriptions() {
        let policy = |patterns: Option<&[&str]>| CallbackPolicy {
            allowed: patterns.map(|patterns| callback_patterns(patterns).unwrap()),
            refused: CallbackNotAllowed::Park,
            reply_to_unit: true,
        };
        let some = policy(Some(&["reply.#", "shop.*.done"]));
        for (topic, allowed) in [
            ("reply.a.b", true),
            ("reply", true),
            ("shop.x.done", true),
            ("bank.transfer", false),
            ("Reply.a", false),
        ] {
            assert_eq!(some.allows(topic), allowed, "{topic}");
        }
        assert!(policy(None).allows("anything"));
        assert!(!policy(Some(&[])).allows("anything"), "an empty list allows nothing");
        assert!(callback_patterns(&["a b"]).is_err());
    }
}
