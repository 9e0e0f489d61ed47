//! The headers of the message being handled, and control of the reply.

use std::borrow::Cow;

use crate::message::Headers;
use crate::publish::attempt_data::{AttemptData, Callback, ResponseControl};
use cap_adapter::Delivery;
use cap_adapter::FromDelivery;
use cap_adapter::HandlerError;

/// The headers of the message being handled, and control of the reply that is published to the sender's callback topic.
///
/// Changes apply to this attempt only, and take effect when the handler succeeds.
///
/// ```
/// use cap_core::prelude::*;
///
/// #[cap_subscribe("order.placed")]
/// async fn placed(order: u64, headers: CapHeaders) -> Reply<bool> {
///     headers.add_response_header("warehouse", "north");
///     if headers.get("tenant") == Some("test") {
///         headers.remove_callback();
///     }
///     Reply(order % 2 == 0)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct CapHeaders(Delivery);

impl CapHeaders {
    /// Returns the value of a header; `None` if it is absent or null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all().get(name)
    }

    /// Returns all headers as received, with `cap-msg-group` and `cap-exec-instance-id` added.
    #[must_use]
    pub fn all(&self) -> &Headers {
        &self.0.message().headers
    }

    /// Adds a header to the reply. The bus's own correlation headers cannot be overridden this way. With a
    /// `cap-callback-name` the reply asks for a reply in turn.
    pub fn add_response_header(&self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.control(|response| response.headers.insert(name, value));
    }

    /// Publishes the reply to this topic instead of the requested one, or publishes one although none was requested.
    pub fn rewrite_callback(&self, topic: impl Into<String>) {
        self.control(|response| response.callback = Callback::To(topic.into()));
    }

    /// Publishes no reply.
    pub fn remove_callback(&self) {
        self.control(|response| response.callback = Callback::None);
    }

    fn control(&self, change: impl FnOnce(&mut ResponseControl)) {
        if let Some(data) = AttemptData::of(&self.0) {
            data.response_control(change);
        }
    }
}

impl FromDelivery for CapHeaders {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        Ok(Self(delivery.clone()))
    }
}
