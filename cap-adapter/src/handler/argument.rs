//! The trait for handler arguments, and the built-in arguments.

use std::any::type_name;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::delivery::Delivery;
use super::error::HandlerError;
use super::state::{CheckContext, State};
use crate::error::{ShortTypeName, json_error_text};
use crate::message::MessageId;

/// What can be an argument of a handler.
///
/// Every type that implements `Deserialize` is one: it is the payload, and a handler has at most one payload;
/// [`Payload`] marks it in the signature. The
/// others are extractors: `CapHeaders`, [`State`], [`RawBody`], [`MessageId`], [`Topic`], [`Attempt`], [`Cancelled`],
/// `Publisher`, the bus itself as `Cap`, [`Delivery`], and those that adapters and applications add by implementing
/// this trait for a type of their own that does not implement `Deserialize`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler",
    label = "not a valid handler argument",
    note = "a payload needs `#[derive(Deserialize)]`; shared values come as `State<T>` with a `T: Send + Sync`; others are CapHeaders, RawBody, MessageId, Topic, Attempt, Cancelled, Publisher, Cap, Delivery"
)]
pub trait FromDelivery: Sized {
    /// Whether it is decoded from the body.
    #[doc(hidden)]
    const TAKES_BODY: bool = false;

    /// Checks at start whether the argument is available.
    ///
    /// # Errors
    ///
    /// A text that continues after the function's name, such as "needs `State<Stock>`, which was not given".
    fn check(context: &CheckContext<'_>) -> Result<(), String> {
        let _ = context;
        Ok(())
    }

    /// Extracts the argument from a delivery.
    ///
    /// # Errors
    ///
    /// Counts like an error of the handler.
    fn from_delivery(delivery: &Delivery) -> impl Future<Output = Result<Self, HandlerError>> + Send;
}

// If the derive is missing, the error shows this trait's message instead of a list of serde's types.
#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned + Send> FromDelivery for T {
    const TAKES_BODY: bool = true;

    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        decode(delivery)
    }
}

fn decode<T: DeserializeOwned>(delivery: &Delivery) -> Result<T, HandlerError> {
    delivery.message().payload().map_err(|error| {
        let wanted = ShortTypeName(type_name::<T>());
        HandlerError::undecodable(if delivery.message().body.is_empty() {
            format!("the body is empty (null); the handler expects {wanted}")
        } else {
            let error =
                if delivery.parts().payload_in_errors { error.to_string() } else { json_error_text(&error) };
            format!("the body cannot be decoded as {wanted}: {error}")
        })
    })
}

/// The payload, decoded from the body: the same as the bare type, for those who want to see in the signature which
/// argument it is.
///
/// ```
/// use cap_core::prelude::*;
///
/// #[derive(Deserialize)]
/// struct OrderPlaced { order: u64 }
///
/// #[cap_subscribe("order.placed")]
/// async fn placed(Payload(placed): Payload<OrderPlaced>, Topic(topic): Topic) {
///     println!("{topic}: order {}", placed.order);
/// }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Payload<T>(pub T);

impl<T> Deref for Payload<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned + Send> FromDelivery for Payload<T> {
    const TAKES_BODY: bool = true;

    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        decode(delivery).map(Self)
    }
}

/// The body as it was received. It can be combined with a typed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawBody(pub Bytes);

/// The topic of the message, as the sender set it. Useful for handlers with a wildcard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic(pub Arc<str>);

/// The number of the attempt, from 1, over the whole life of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u32);

/// A token that is cancelled when the handler should stop early: the bus is shutting down, or this node has lost the
/// lease of the message. A handler that stops because of it returns [`HandlerError::cancelled`]; a handler that
/// ignores it can run until the shutdown's deadline.
#[derive(Debug, Clone)]
pub struct Cancelled(pub CancellationToken);

impl Deref for Topic {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Deref for Cancelled {
    type Target = CancellationToken;

    fn deref(&self) -> &CancellationToken {
        &self.0
    }
}

impl FromDelivery for RawBody {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        Ok(Self(delivery.message().body.clone()))
    }
}

impl FromDelivery for Topic {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        Ok(Self(Arc::clone(&delivery.parts().topic)))
    }
}

impl FromDelivery for MessageId {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        Ok(delivery.message_id().clone())
    }
}

impl FromDelivery for Attempt {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        Ok(Self(delivery.attempt()))
    }
}

impl FromDelivery for Cancelled {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        Ok(Self(delivery.cancelled().clone()))
    }
}

impl FromDelivery for Delivery {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        Ok(delivery.clone())
    }
}

impl<T: Send + Sync + 'static> FromDelivery for State<T> {
    fn check(context: &CheckContext<'_>) -> Result<(), String> {
        context.require_state::<T>()
    }

    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        delivery.state().map(State).ok_or_else(|| {
            HandlerError::permanent(format!("no state of the type {}", ShortTypeName(type_name::<T>())))
        })
    }
}
