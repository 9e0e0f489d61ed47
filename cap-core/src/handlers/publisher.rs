//! Publishing messages together with the success of a handler.

use bytes::Bytes;
use cap_adapter::{Delivery, FromDelivery, HandlerError};
use serde::Serialize;

use crate::publish::{Publish, PublishAll, Target};

/// Publishes messages together with the success of the handler that takes it as an argument.
///
/// The messages are stored if and only if the handler succeeds, in the transaction that completes the handled message.
/// Messages of a failed attempt are never published. The trace context of the handled message is copied to them.
///
/// A clone that outlives the handler, in a task that the handler has spawned, publishes nothing and returns an error. To
/// publish independently of the handler's success, use the bus itself ([`Cap`](crate::Cap)), which can be an argument, too.
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
    /// Publishes a payload to a topic; see [`Cap::publish`](crate::Cap::publish).
    pub fn publish<T: Serialize + ?Sized>(&self, topic: impl Into<String>, payload: &T) -> Publish {
        Publish::new(Target::Delivery(self.0.clone()), topic.into(), payload)
    }

    /// Publishes a body as it is; see [`Cap::publish_bytes`](crate::Cap::publish_bytes).
    pub fn publish_bytes(&self, topic: impl Into<String>, body: impl Into<Bytes>) -> Publish {
        Publish::of_bytes(Target::Delivery(self.0.clone()), topic.into(), body.into())
    }

    /// Publishes several payloads to a topic; see [`Cap::publish_all`](crate::Cap::publish_all).
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
