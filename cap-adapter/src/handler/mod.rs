//! What a handler is given: its message, the arguments that are taken from it, and the errors that it may return.

mod argument;
mod delivery;
mod error;
mod state;

pub use argument::{Attempt, Cancelled, FromDelivery, RawBody, Topic};
pub use delivery::{Completion, Delivery, DeliveryParts, Enlisted};
pub use error::{Classify, HandlerError, HandlerErrorKind};
pub use state::{CheckContext, State, States, StorageView};

/// A boxed future, as layers, credentials' providers and [`Enlisted`] transactions return it.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
