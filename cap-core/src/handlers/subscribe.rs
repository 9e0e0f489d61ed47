//! A subscription that is made at run time, without macros.

use std::time::Duration;

use cap_adapter::Classify;

use super::subscription_settings::SubscriptionSettings;
use crate::RetryPolicy;
use crate::runtime::callback_policy::CallbackNotAllowed;
use crate::runtime::circuit::CircuitBreaker;

/// A subscription made at run time, without macros.
///
/// ```
/// use cap_core::prelude::*;
///
/// let builder = Cap::builder()
///     .subscribe("order.paid", async |order: u64| println!("order {order} is paid"))
///     .subscribe(Subscribe::to("order.#").group("audit").concurrency(4), async |topic: Topic| {
///         println!("something happened: {}", &*topic);
///     });
/// ```
#[derive(Debug, Clone)]
pub struct Subscribe {
    pub(super) topic: String,
    pub(super) settings: SubscriptionSettings,
}

impl Subscribe {
    /// Subscribes to a topic or pattern. For everything else the bus's options apply unless set here.
    #[must_use]
    pub fn to(topic: impl Into<String>) -> Self {
        Self { topic: topic.into(), settings: SubscriptionSettings::default() }
    }

    /// Sets the group, named without prefix and version.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.settings.group = Some(group.into());
        self
    }

    /// Sets how many messages are handled at the same time; see [`SubscriptionOptions::concurrency`](crate::SubscriptionOptions::concurrency).
    #[must_use]
    pub fn concurrency(mut self, concurrency: u16) -> Self {
        self.settings.concurrency = Some(concurrency);
        self
    }

    /// Sets the time after which an attempt fails. A timeout of zero is an error at the start.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// Sets the retry policy.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = Some(policy);
        self
    }

    /// Sets a circuit breaker, which pauses the handler while its dependency is down.
    #[must_use]
    pub fn circuit(mut self, breaker: CircuitBreaker) -> Self {
        self.settings.circuit = Some(breaker);
        self
    }

    /// Sets the classifier of its errors, instead of the bus's.
    #[must_use]
    pub fn classify(mut self, classify: Classify) -> Self {
        self.settings.classify = Some(classify);
        self
    }

    /// Consumes this existing queue of the broker, for example a dead-letter queue. The queue is used as it is: it is
    /// neither declared nor bound, and its name gets no prefix and no version. The topic determines which of its messages
    /// this handler gets. The queue replaces the [`group`](Self::group); setting both is an error at the start.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.settings.queue = Some(queue.into());
        self
    }

    /// Sets the topics that senders may request replies to, instead of those that the bus allows; see
    /// [`CapOptions::callbacks_to`](crate::CapOptions::callbacks_to). An invalid pattern is an error at the start.
    #[must_use]
    pub fn callbacks_to<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.settings.callbacks_to = Some(patterns.into_iter().map(Into::into).collect());
        self
    }

    /// Sets what happens to a message that requests a reply to another topic; see
    /// [`CapOptions::callback_not_allowed`](crate::CapOptions::callback_not_allowed).
    #[must_use]
    pub fn callback_not_allowed(mut self, what: CallbackNotAllowed) -> Self {
        self.settings.callback_not_allowed = Some(what);
        self
    }

    /// Sets whether a handler that returns `()` sends a reply; see
    /// [`CapOptions::reply_to_unit`](crate::CapOptions::reply_to_unit).
    #[must_use]
    pub fn reply_to_unit(mut self, reply: bool) -> Self {
        self.settings.reply_to_unit = Some(reply);
        self
    }

    /// Sets the header that determines the order: messages with the same value of it are handled one at a time, in delivery
    /// order.
    #[must_use]
    pub fn order_by(mut self, header: impl Into<String>) -> Self {
        self.settings.order_by = Some(header.into());
        self
    }
}

impl From<&str> for Subscribe {
    fn from(topic: &str) -> Self {
        Self::to(topic)
    }
}

impl From<String> for Subscribe {
    fn from(topic: String) -> Self {
        Self::to(topic)
    }
}

impl From<&String> for Subscribe {
    fn from(topic: &String) -> Self {
        Self::to(topic)
    }
}
