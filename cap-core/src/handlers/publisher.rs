//! Publishing as part of a handler's success.

use cap_adapter::{Delivery, FromDelivery, HandlerError};
use serde::Serialize;

use crate::publish::{Publish, PublishAll, Target};

/// Publishes from inside a handler: what it publishes leaves if and only if the handler succeeds, in the same
/// transaction that marks the consumed message as done. Messages of a failed attempt are never seen by anyone.
///
/// The consumed message's trace context goes along. A clone that outlives the handler, in a task that it has spawned,
/// publishes nothing any more and says so; for what is to leave whatever becomes of the handler there is the bus itself,
/// which can be an argument, too ([`Cap`](crate::Cap)).
///
/// ```
/// use cap_core::prelude::*;
///
/// #[cap_subscribe("order.placed")]
/// async fn placed(order: u64, publisher: Publisher) -> Result<(), PublishError> {
///     publisher.publish("invoice.wanted", &order).await?;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Publisher(Delivery);

impl Publisher {
    /// A message to a topic with a payload; see [`Cap::publish`](crate::Cap::publish).
    pub fn publish<T: Serialize + ?Sized>(&self, topic: impl Into<String>, payload: &T) -> Publish {
        Publish::new(Target::Delivery(self.0.clone()), topic.into(), payload)
    }

    /// Several messages to a topic; see [`Cap::publish_all`](crate::Cap::publish_all).
    pub fn publish_all<T: Serialize>(
        &self,
        topic: impl Into<String>,
        payloads: impl IntoIterator<Item = T>,
    ) -> PublishAll {
        PublishAll::new(Target::Delivery(self.0.clone()), &topic.into(), payloads)
    }
}

impl FromDelivery for Publisher {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        Ok(Self(delivery.clone()))
    }
}
