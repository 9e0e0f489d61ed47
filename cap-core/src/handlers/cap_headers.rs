//! The headers of the consumed message, and control of the answer.

use std::borrow::Cow;

use crate::message::Headers;
use crate::publish::attempt_data::{AttemptData, Callback, ResponseControl};
use cap_adapter::Delivery;
use cap_adapter::FromDelivery;
use cap_adapter::HandlerError;

/// The headers of the message, and control of the answer that goes to the sender's callback topic.
///
/// Changes count for this attempt only, and take effect when the handler succeeds.
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
    /// The value of a header; `None` when it is absent or null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all().get(name)
    }

    /// All headers as received, with `cap-msg-group` and `cap-exec-instance-id`.
    #[must_use]
    pub fn all(&self) -> &Headers {
        &self.0.message().headers
    }

    /// Puts a header on the answer. The bus's own correlation headers cannot be overridden this way; a
    /// `cap-callback-name` here makes the answer ask for an answer in turn.
    pub fn add_response_header(&self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.control(|response| response.headers.insert(name, value));
    }

    /// Sends the answer to another topic than the sender asked for, or asks for one where the sender did not.
    pub fn rewrite_callback(&self, topic: impl Into<String>) {
        self.control(|response| response.callback = Callback::To(topic.into()));
    }

    /// Sends no answer.
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
