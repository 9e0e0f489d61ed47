//! Functions and closures as handlers, for subscriptions made at run time.

use std::future::Future;

use futures_util::future::BoxFuture;

use super::reply::{IntoOutcome, Outcome};
use cap_adapter::CheckContext;
use cap_adapter::Delivery;
use cap_adapter::FromDelivery;

/// An async function or closure of up to eight arguments, each [`FromDelivery`], that returns something
/// [`IntoOutcome`].
///
/// A handler with two arguments that are read from the body does not compile.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler is an async function or closure; each argument is a payload (one at most) or one of CapHeaders, State<T>, RawBody, MessageId, Topic, Attempt, Cancelled, Publisher, Cap, Delivery; it returns (), Reply<T>, or a Result of either"
)]
pub trait HandlerFn<Arguments>: Send + Sync + 'static {
    /// Calls the handler.
    fn call(&self, delivery: Delivery) -> BoxFuture<'static, Outcome>;

    /// Checks that every argument can be provided.
    ///
    /// # Errors
    ///
    /// The predicate of a sentence whose subject is the function's name.
    fn check(context: &CheckContext<'_>) -> Result<(), String>;
}

macro_rules! handler_fn {
    ($($argument:ident),*) => {
        impl<F, Fut, $($argument,)*> HandlerFn<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future + Send + 'static,
            Fut::Output: IntoOutcome,
            $($argument: FromDelivery + Send + 'static,)*
        {
            fn call(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
                const {
                    let bodies = 0usize $(+ $argument::TAKES_BODY as usize)*;
                    assert!(bodies <= 1, "a handler has at most one argument that is read from the body");
                }
                let function = self.clone();
                Box::pin(async move {
                    let _ = &delivery;
                    function($($argument::from_delivery(&delivery).await?),*).await.into_outcome()
                })
            }

            fn check(context: &CheckContext<'_>) -> Result<(), String> {
                let _ = context;
                $($argument::check(context)?;)*
                Ok(())
            }
        }
    };
}

handler_fn!();
handler_fn!(A1);
handler_fn!(A1, A2);
handler_fn!(A1, A2, A3);
handler_fn!(A1, A2, A3, A4);
handler_fn!(A1, A2, A3, A4, A5);
handler_fn!(A1, A2, A3, A4, A5, A6);
handler_fn!(A1, A2, A3, A4, A5, A6, A7);
handler_fn!(A1, A2, A3, A4, A5, A6, A7, A8);
