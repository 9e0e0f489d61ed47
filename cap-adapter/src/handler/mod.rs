//! Handler arguments, the delivery that they are extracted from, and handler errors.

mod argument;
mod delivery;
mod error;
mod state;

pub use argument::{Attempt, Cancelled, FromDelivery, Payload, RawBody, Topic};
pub use delivery::{Completion, Delivery, DeliveryParts, Enlisted};
pub use error::{Classify, HandlerError, HandlerErrorKind};
pub use state::{CheckContext, State, States, StorageView};

/// A boxed future, as returned by layers, credentials providers and [`Enlisted`] transactions.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
