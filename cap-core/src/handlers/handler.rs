//! A handler without its types: what the macros write, and what registration at run time makes.

use std::sync::Arc;
use std::time::Duration;

use super::function::HandlerFn;
use super::reply::Outcome;
use crate::RetryPolicy;
use crate::runtime::callback_policy::CallbackNotAllowed;
use crate::runtime::circuit::CircuitBreaker;
use cap_adapter::CheckContext;
use cap_adapter::Classify;
use cap_adapter::Delivery;

use cap_adapter::BoxFuture;

/// A handler that the macros have made into plain function pointers: nothing is allocated to register it.
#[derive(Debug, Clone, Copy)]
pub struct HandlerPointers {
    /// Runs the handler on one delivery; one allocation each.
    pub call: fn(Delivery) -> BoxFuture<'static, Outcome>,
    /// Whether every argument can be had; else a sentence that goes on after the function's name.
    pub check: fn(&CheckContext<'_>) -> Result<(), String>,
}

/// One `#[cap_subscribe]`: a topic, a handler, and what the attribute said. A constant; see
/// [`CapBuilder::subscriptions`](crate::CapBuilder::subscriptions).
#[derive(Debug, Clone, Copy)]
pub struct Subscription {
    /// The topic or pattern, without the bus's prefix; a method's partial topic is joined to its prefix already.
    pub topic: &'static str,
    /// What the attribute said besides.
    pub options: SubscriptionOptions,
    /// The handler's path, for errors and logs.
    pub function: &'static str,
    /// The package that it is in.
    pub package: &'static str,
    /// The handler.
    pub handler: HandlerPointers,
}

/// What an attribute may say besides the topic. `None` everywhere means: as the bus's options say.
#[derive(Debug, Clone, Copy, Default)]
pub struct SubscriptionOptions {
    /// The group, without prefix and version.
    pub group: Option<&'static str>,
    /// How many messages the group runs at the same time. Where several handlers of a group say it, the sum holds.
    pub concurrency: Option<u16>,
    /// How long the handler may take.
    pub timeout: Option<Duration>,
    /// When a failed attempt is repeated.
    pub retry: Option<fn() -> RetryPolicy>,
    /// A header: messages that have the same value in it are handled one after the other, in delivery order.
    pub order_by: Option<&'static str>,
    /// When the subscriber pauses.
    pub circuit: Option<fn() -> CircuitBreaker>,
    /// What says more about its errors.
    pub classify: Option<Classify>,
    /// A queue of somebody else's to consume, by its full name, instead of a group's own.
    pub queue: Option<&'static str>,
    /// The topics that senders may have replies go to; see [`CapOptions::callbacks_to`](crate::CapOptions::callbacks_to).
    pub callbacks_to: Option<&'static [&'static str]>,
    /// What happens to a message that asks for a reply to another topic.
    pub callback_not_allowed: Option<CallbackNotAllowed>,
    /// Whether `()` is a reply; see [`CapOptions::reply_to_unit`](crate::CapOptions::reply_to_unit).
    pub reply_to_unit: Option<bool>,
}

/// What the macros submit for collection at link time.
#[derive(Debug)]
pub struct Submission(pub &'static [Subscription]);

inventory::collect!(Submission);

/// A subscription made at run time, without macros.
///
/// ```
/// use cap_core::prelude::*;
///
/// let builder = Cap::builder()
///     .subscribe("order.paid", async |order: u64| println!("order {order} is paid"))
///     .subscribe_with(Subscribe::to("order.#").group("audit").concurrency(4), async |topic: Topic| {
///         println!("something happened: {}", &*topic);
///     });
/// ```
#[derive(Debug, Clone)]
pub struct Subscribe {
    pub(crate) topic: String,
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

impl Subscribe {
    /// To a topic or pattern, with everything else as the bus's options say.
    #[must_use]
    pub fn to(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            group: None,
            concurrency: None,
            timeout: None,
            retry: None,
            order_by: None,
            circuit: None,
            classify: None,
            queue: None,
            callbacks_to: None,
            callback_not_allowed: None,
            reply_to_unit: None,
        }
    }

    /// In this group, named without prefix and version.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// So many at the same time; see [`SubscriptionOptions::concurrency`].
    #[must_use]
    pub fn concurrency(mut self, concurrency: u16) -> Self {
        self.concurrency = Some(concurrency);
        self
    }

    /// Failed after this time. No time at all is refused at the start.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Repeated by this policy.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Paused while what it depends on is away.
    #[must_use]
    pub fn circuit(mut self, breaker: CircuitBreaker) -> Self {
        self.circuit = Some(breaker);
        self
    }

    /// With this to say more about its errors, instead of the bus's classifier.
    #[must_use]
    pub fn classify(mut self, classify: Classify) -> Self {
        self.classify = Some(classify);
        self
    }

    /// Consumes this queue of the broker, which somebody else made, as it is: nothing is declared and nothing bound,
    /// and its name has no prefix and no version. For an operator's dead-letter queue, for instance. The topic says
    /// which of its messages this handler takes. The queue stands in the place of a [`group`](Self::group): a
    /// subscription that names both is refused at the start.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// The topics that senders may have replies go to, instead of those that the bus allows; see
    /// [`CapOptions::callbacks_to`](crate::CapOptions::callbacks_to). What is no pattern is refused at the start.
    #[must_use]
    pub fn callbacks_to<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.callbacks_to = Some(patterns.into_iter().map(Into::into).collect());
        self
    }

    /// What happens to a message that asks for a reply to another topic; see
    /// [`CapOptions::callback_not_allowed`](crate::CapOptions::callback_not_allowed).
    #[must_use]
    pub fn callback_not_allowed(mut self, what: CallbackNotAllowed) -> Self {
        self.callback_not_allowed = Some(what);
        self
    }

    /// Whether a handler that returns `()` sends a reply; see
    /// [`CapOptions::reply_to_unit`](crate::CapOptions::reply_to_unit).
    #[must_use]
    pub fn reply_to_unit(mut self, reply: bool) -> Self {
        self.reply_to_unit = Some(reply);
        self
    }

    /// In order of delivery among messages with the same value of this header.
    #[must_use]
    pub fn order_by(mut self, header: impl Into<String>) -> Self {
        self.order_by = Some(header.into());
        self
    }
}

/// A handler as the runtime holds it.
#[derive(Clone)]
pub(crate) enum ErasedHandler {
    /// Made by a macro.
    Pointers(HandlerPointers),
    /// Registered at run time.
    Shared(Arc<dyn SharedHandler>),
}

/// A handler registered at run time, erased.
pub(crate) trait SharedHandler: Send + Sync {
    fn call(&self, delivery: Delivery) -> BoxFuture<'static, Outcome>;
    fn check(&self, context: &CheckContext<'_>) -> Result<(), String>;
}

struct Typed<H, A>(H, std::marker::PhantomData<fn(A)>);

impl<A: 'static, H: HandlerFn<A>> SharedHandler for Typed<H, A> {
    fn call(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        self.0.call(delivery)
    }

    fn check(&self, context: &CheckContext<'_>) -> Result<(), String> {
        H::check(context)
    }
}

impl ErasedHandler {
    pub(crate) fn shared<A: 'static, H: HandlerFn<A>>(handler: H) -> Self {
        Self::Shared(Arc::new(Typed(handler, std::marker::PhantomData)))
    }

    pub(crate) fn call(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        match self {
            Self::Pointers(pointers) => (pointers.call)(delivery),
            Self::Shared(handler) => handler.call(delivery),
        }
    }

    pub(crate) fn check(&self, context: &CheckContext<'_>) -> Result<(), String> {
        match self {
            Self::Pointers(pointers) => (pointers.check)(context),
            Self::Shared(handler) => handler.check(context),
        }
    }
}
