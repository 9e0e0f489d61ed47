//! What a handler can return, and the outcome that it is converted into.

use bytes::Bytes;
use serde::Serialize;

use crate::error::BoxError;
use crate::publish::payload::serialize;
use cap_adapter::{HandlerError, RawBody};

/// A handler's reply, which is published to the callback topic if the sender has named one.
///
/// ```
/// use cap_core::prelude::*;
///
/// #[derive(Serialize)]
/// struct Sum { value: i64 }
///
/// #[cap_subscribe("numbers.add")]
/// async fn add(numbers: Vec<i64>) -> Reply<Sum> {
///     Reply(Sum { value: numbers.iter().sum() })
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<T>(pub T);

/// A serialized reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The JSON of the reply, empty for null; or the bytes of a [`RawBody`].
    pub body: Bytes,
}

/// The outcome of running a handler: a reply, no reply (published as null if the sender has named a callback topic), or an
/// error.
pub type Outcome = Result<Option<Response>, HandlerError>;

/// A value that a handler can return: `()`, [`Reply<T>`], a [`RawBody`] whose bytes are the reply, or a `Result` of one of
/// these with any error.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "not something a handler can return",
    note = "return `()`, `Reply<T>` with a `T: Serialize`, or `Result` of either with an error type"
)]
pub trait IntoOutcome {
    /// Converts the returned value into an outcome.
    #[doc(hidden)]
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Ok(None)
    }
}

impl<T: Serialize> IntoOutcome for Reply<T> {
    fn into_outcome(self) -> Outcome {
        match serialize(&self.0) {
            Ok(body) => Ok(Some(Response { body })),
            Err(error) => Err(HandlerError::permanent(format!("the reply cannot be serialized: {error}"))),
        }
    }
}

impl IntoOutcome for RawBody {
    fn into_outcome(self) -> Outcome {
        Ok(Some(Response { body: self.0 }))
    }
}

impl<R: IntoOutcome, E: ErrorOfHandler> IntoOutcome for Result<R, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(),
            Err(error) => Err(HandlerError::from_any(error.boxed())),
        }
    }
}

/// An error that a handler can return: any that converts into a [`BoxError`]. A trait of its own, so that the compiler says
/// what an error must be in one sentence.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a handler",
    label = "not an error that a handler can return",
    note = "return `HandlerError`, `BoxError` (which is `Box<dyn Error + Send + Sync>`), or a type of your own that implements `std::error::Error + Send + Sync + 'static`"
)]
pub trait ErrorOfHandler {
    /// The error in a box.
    #[doc(hidden)]
    fn boxed(self) -> BoxError;
}

// If it does not apply, the error shows the message above instead of the conversions that were tried.
#[diagnostic::do_not_recommend]
impl<E: Into<BoxError>> ErrorOfHandler for E {
    fn boxed(self) -> BoxError {
        self.into()
    }
}
