//! The builder's names from before `handlers`, until 0.2.

use super::builder::CapBuilder;
use crate::handlers::{HandlerFn, Registration, Subscribe, Subscription};

impl CapBuilder {
    /// The former way to [`subscribe`](Self::subscribe) with options.
    #[deprecated(note = "use subscribe, which also takes a Subscribe")]
    pub fn subscribe_with<A: 'static, H: HandlerFn<A>>(self, subscribe: Subscribe, handler: H) -> Self {
        self.subscribe(subscribe, handler)
    }

    /// The former way to subscribe annotated handlers by name.
    #[deprecated(note = "use handlers(Handlers::listed([..]))")]
    pub fn subscriptions(mut self, subscriptions: &[Subscription]) -> Self {
        self.registrations.extend(subscriptions.iter().map(Registration::from_subscription));
        self
    }

    /// The former way to leave out linked handlers.
    #[deprecated(
        note = "use handlers(..) with Handlers::linked(), Handlers::listed([..]) or Handlers::none()"
    )]
    pub fn linked_handlers(mut self, linked: bool) -> Self {
        self.handlers.set_linked(linked);
        self
    }

    /// The former way to start without handlers.
    #[deprecated(note = "use handlers(Handlers::none())")]
    pub fn publish_only(mut self) -> Self {
        self.handlers.set_none();
        self
    }

    /// The former way to require handlers.
    #[deprecated(note = "use handlers(Handlers::linked().expecting([..]))")]
    pub fn expect_topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.handlers = self.handlers.expecting(topics);
        self
    }

    /// The former name of [`state`](Self::state) for an instance whose methods are handlers.
    #[deprecated(note = "use state")]
    pub fn subscriber<T: Send + Sync + 'static>(self, instance: T) -> Self {
        self.state(instance)
    }
}
