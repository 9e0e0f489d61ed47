//! The settings of a subscription besides its topic: as the constant of an attribute, and as the bus keeps them.

use std::time::Duration;

use cap_adapter::Classify;

use crate::RetryPolicy;
use crate::message::validate_group;
use crate::runtime::callback_policy::{CallbackNotAllowed, CallbackPolicy, callback_patterns};
use crate::runtime::circuit::CircuitBreaker;
use crate::runtime::options::CapOptions;

/// The options of a subscription attribute besides the topic. `None` means that the bus's options apply.
#[derive(Debug, Clone, Copy, Default)]
pub struct SubscriptionOptions {
    /// The group, without prefix and version.
    pub group: Option<&'static str>,
    /// How many messages the group handles at the same time. If several handlers of a group set it, the sum applies.
    pub concurrency: Option<u16>,
    /// How long the handler may take.
    pub timeout: Option<Duration>,
    /// When a failed attempt is retried.
    pub retry: Option<fn() -> RetryPolicy>,
    /// The name of a header. Messages with the same value of it are handled one at a time, in delivery order.
    pub order_by: Option<&'static str>,
    /// When the subscriber is paused.
    pub circuit: Option<fn() -> CircuitBreaker>,
    /// The classifier of its errors.
    pub classify: Option<Classify>,
    /// The full name of an existing queue to consume, instead of a group's own queue.
    pub queue: Option<&'static str>,
    /// The topics that senders may request replies to; see [`CapOptions::callbacks_to`](crate::CapOptions::callbacks_to).
    pub callbacks_to: Option<&'static [&'static str]>,
    /// What happens to a message that requests a reply to another topic.
    pub callback_not_allowed: Option<CallbackNotAllowed>,
    /// Whether a handler that returns `()` sends a reply; see
    /// [`CapOptions::reply_to_unit`](crate::CapOptions::reply_to_unit).
    pub reply_to_unit: Option<bool>,
}

/// The settings of a subscription besides the topic, from the macros or from the builder. `None` means that the bus's options
/// apply.
#[derive(Debug, Clone, Default)]
pub(crate) struct SubscriptionSettings {
    pub(crate) group: Option<String>,
    pub(crate) concurrency: Option<u16>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) order_by: Option<String>,
    pub(crate) circuit: Option<CircuitBreaker>,
    pub(crate) classify: Option<Classify>,
    pub(crate) queue: Option<String>,
    pub(crate) callbacks_to: Option<Vec<String>>,
    pub(crate) callback_not_allowed: Option<CallbackNotAllowed>,
    pub(crate) reply_to_unit: Option<bool>,
}

impl From<&SubscriptionOptions> for SubscriptionSettings {
    fn from(options: &SubscriptionOptions) -> Self {
        Self {
            group: options.group.map(str::to_owned),
            concurrency: options.concurrency,
            timeout: options.timeout,
            retry: options.retry.map(|policy| policy()),
            order_by: options.order_by.map(str::to_owned),
            circuit: options.circuit.map(|circuit| circuit()),
            classify: options.classify,
            queue: options.queue.map(str::to_owned),
            callbacks_to: options
                .callbacks_to
                .map(|patterns| patterns.iter().map(|&text| text.to_owned()).collect()),
            callback_not_allowed: options.callback_not_allowed,
            reply_to_unit: options.reply_to_unit,
        }
    }
}

impl SubscriptionSettings {
    /// The full name of the group, or the existing queue that replaces it.
    pub(super) fn full_group(&self, options: &CapOptions) -> String {
        match &self.queue {
            Some(queue) => queue.clone(),
            None => options.full_group(self.group.as_deref()),
        }
    }

    /// All problems, each with the name of the function.
    pub(super) fn problems(&self, function: &str, options: &CapOptions) -> Vec<String> {
        let mut problems = Vec::new();
        if self.concurrency == Some(0) {
            problems.push(format!("{function} has concurrency 0, so it would never run"));
        }
        if self.timeout == Some(Duration::ZERO) {
            problems.push(format!("{function} has a timeout of zero, so every message would time out"));
        }
        if let Some(problem) = self.circuit.and_then(|circuit| circuit.problem()) {
            problems.push(format!("{function}: its circuit breaker {problem}"));
        }
        if let Some(Err(problem)) = self.callbacks_to.as_deref().map(callback_patterns) {
            problems.push(format!("{function}: {problem}"));
        }
        if self.queue.is_some() && self.group.is_some() {
            problems.push(format!(
                "{function} sets both a group and a queue; an existing queue has no group, so remove one of them"
            ));
        }
        if let Err(error) = validate_group(&self.full_group(options)) {
            problems.push(format!("{function}: {error}"));
        }
        problems
    }

    /// The rules for the handler's replies. The patterns must be checked already.
    pub(super) fn callback_policy(&self, options: &CapOptions) -> CallbackPolicy {
        let patterns = self.callbacks_to.as_ref().or(options.callbacks_to.as_ref());
        CallbackPolicy {
            allowed: patterns.map(|patterns| callback_patterns(patterns).unwrap_or_default()),
            not_allowed: self.callback_not_allowed.unwrap_or(options.callback_not_allowed),
            reply_to_unit: self.reply_to_unit.unwrap_or(options.reply_to_unit),
        }
    }
}
