//! Which topics replies may be sent to. The sender of a message names the topic, but the reply is published with this
//! service's permissions at the broker.

use serde::{Deserialize, Serialize};

use crate::message::TopicPattern;

/// What happens to a message whose `cap-callback-name` is not among the topics that
/// [`callbacks_to`](crate::CapOptions::callbacks_to) allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackNotAllowed {
    /// The message is parked before its handler runs, with
    /// [`Reason::CallbackNotAllowed`](crate::storage::Reason::CallbackNotAllowed). A re-run checks again.
    #[default]
    Park,
    /// The message is handled, but no reply is sent; a warning is logged.
    Drop,
}

/// The rules for the replies of one subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallbackPolicy {
    /// The topics that a sender may ask replies to be sent to, with their prefix; `None` for any.
    pub(crate) allowed: Option<Vec<TopicPattern>>,
    pub(crate) not_allowed: CallbackNotAllowed,
    /// Whether a handler that returns `()` sends a reply with an empty body.
    pub(crate) reply_to_unit: bool,
}

impl CallbackPolicy {
    /// Whether a sender may ask for replies to this topic, given with its prefix.
    pub(crate) fn allows(&self, topic: &str) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|pattern| pattern.matches(topic)))
    }

    /// Whether a message that asks for a reply to this topic is parked instead of handled.
    pub(crate) fn parks(&self, topic: &str) -> bool {
        self.not_allowed == CallbackNotAllowed::Park && !self.allows(topic)
    }
}

/// Parses the patterns of `callbacks_to`.
///
/// # Errors
///
/// Says what is wrong with the first invalid pattern.
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
            not_allowed: CallbackNotAllowed::Park,
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
