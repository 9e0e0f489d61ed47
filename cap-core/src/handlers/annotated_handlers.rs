//! Which of the annotated handlers a bus subscribes.

use super::handler::Subscription;
use super::registration::Registration;

/// Which annotated handlers (`#[cap_subscribe]`, `#[cap_subscriber]`) a bus subscribes; for
/// [`CapBuilder::handlers`](crate::CapBuilder::handlers). Without it: all that are [linked](Self::linked) into the program.
///
/// ```
/// use cap_core::prelude::*;
///
/// #[cap_subscribe("order.placed")]
/// async fn reserve(order: u64) {
///     println!("reserving for order {order}");
/// }
///
/// // This bus has this one handler, whatever else is linked.
/// let stock = Cap::builder().handlers(Handlers::listed([reserve::SUBSCRIPTIONS]));
/// // This one only publishes.
/// let shop = Cap::builder().handlers(Handlers::none());
/// // A crate whose handlers were not linked is noticed at the start.
/// let all = Cap::builder().handlers(Handlers::linked().expecting(["order.placed", "order.cancelled"]));
/// ```
#[derive(Debug, Clone)]
#[must_use = "give it to CapBuilder::handlers"]
pub struct Handlers {
    which: Which,
    expected: Vec<String>,
}

#[derive(Debug, Clone)]
enum Which {
    Linked,
    Listed(Vec<Subscription>),
    None,
}

impl Handlers {
    /// All that are linked into the program. A program without any handler does not start.
    pub fn linked() -> Self {
        Self::of(Which::Linked)
    }

    /// Only these, whatever else is linked: `Handlers::listed([on_order::SUBSCRIPTIONS, OrderHandlers::SUBSCRIPTIONS])`. A bus
    /// without any handler does not start.
    pub fn listed<'a>(lists: impl IntoIterator<Item = &'a [Subscription]>) -> Self {
        Self::of(Which::Listed(lists.into_iter().flatten().copied().collect()))
    }

    /// None, for a service that only publishes, or that gives all of its handlers to
    /// [`CapBuilder::subscribe`](crate::CapBuilder::subscribe).
    pub fn none() -> Self {
        Self::of(Which::None)
    }

    /// Topics for which there must be a handler, or the bus does not start. It finds a crate of handlers that was never
    /// linked. A topic is named without `topic_prefix`, as handlers name it.
    pub fn expecting<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.expected.extend(topics.into_iter().map(Into::into));
        self
    }

    fn of(which: Which) -> Self {
        Self { which, expected: Vec::new() }
    }

    /// As the former `CapBuilder::linked_handlers` had it, which did not end what `publish_only` allows.
    pub(crate) fn set_linked(&mut self, linked: bool) {
        if !self.allows_none() {
            self.which = if linked { Which::Linked } else { Which::Listed(Vec::new()) };
        }
    }

    /// As the former `CapBuilder::publish_only` had it.
    pub(crate) fn set_none(&mut self) {
        self.which = Which::None;
    }

    /// Whether a bus without any handler starts.
    pub(crate) fn allows_none(&self) -> bool {
        matches!(self.which, Which::None)
    }

    /// The topics for which there must be a handler.
    pub(crate) fn expected(&self) -> &[String] {
        &self.expected
    }

    pub(crate) fn registrations(&self) -> Vec<Registration> {
        match &self.which {
            Which::Linked => Registration::linked(),
            Which::Listed(listed) => listed.iter().map(Registration::from_subscription).collect(),
            Which::None => Vec::new(),
        }
    }
}

impl Default for Handlers {
    fn default() -> Self {
        Self::linked()
    }
}
