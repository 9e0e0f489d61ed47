//! Handlers that are known at compile time: the traits that the attribute macros implement, and how a handler becomes
//! function pointers.
//!
//! All of this is exempt from semantic versioning. The macros generate as little code as possible; how a handler is called
//! and gets its arguments is ordinary code in this file.

use std::future::Future;
use std::sync::Arc;

use super::handler::HandlerPointers;
use super::reply::Outcome;
use cap_adapter::BoxFuture;
use cap_adapter::CheckContext;
use cap_adapter::Delivery;
use cap_adapter::FromDelivery;
use cap_adapter::HandlerError;

/// An annotated function. The trait is implemented for a type with the name of the function, or for the type that the
/// method belongs to; `N` distinguishes the methods of one type.
pub trait StaticHandler<const N: usize>: 'static {
    /// Whether each argument is read from the body.
    const BODIES: &'static [bool];

    /// Extracts the arguments from the delivery, runs the function, and converts what it returns into an outcome. The name
    /// of this method appears in the compiler's error about a handler that is not `Send`.
    fn handler(delivery: &Delivery) -> impl Future<Output = Outcome> + Send;

    /// Checks that every argument can be provided.
    ///
    /// # Errors
    ///
    /// The predicate of a sentence whose subject is the function's name.
    fn check(context: &CheckContext<'_>) -> Result<(), String>;
}

/// Argument `I` of the handler `N`.
///
/// The type of an argument is written only here. The functions below refer to it through this trait, so that the compiler
/// reports a type that is not a valid argument in one place and only once.
pub trait HandlerArgument<const N: usize, const I: usize> {
    /// The type of the argument.
    type Wanted: FromDelivery;
}

/// Whether an argument is read from the body.
#[must_use]
pub const fn takes_body<H: HandlerArgument<N, I>, const N: usize, const I: usize>() -> bool {
    H::Wanted::TAKES_BODY
}

/// Checks that an argument can be provided.
///
/// # Errors
///
/// The predicate of a sentence whose subject is the function's name.
pub fn check<H: HandlerArgument<N, I>, const N: usize, const I: usize>(
    context: &CheckContext<'_>,
) -> Result<(), String> {
    H::Wanted::check(context)
}

/// Extracts an argument from a delivery.
///
/// # Errors
///
/// The error of the extraction, which is treated like an error of the handler.
pub fn take<H: HandlerArgument<N, I>, const N: usize, const I: usize>(
    delivery: &Delivery,
) -> impl Future<Output = Result<H::Wanted, HandlerError>> + Send {
    H::Wanted::from_delivery(delivery)
}

/// Checks that the instance to call a method on is registered.
///
/// # Errors
///
/// The predicate of a sentence whose subject is the method's name.
pub fn check_instance<T: 'static>(context: &CheckContext<'_>) -> Result<(), String> {
    context.require_instance::<T>()
}

/// Returns the instance to call a method on.
///
/// # Errors
///
/// If there is none, which the check at the start has ruled out.
pub fn instance<T: Send + Sync + 'static>(delivery: &Delivery) -> Result<Arc<T>, HandlerError> {
    delivery.instance()
}

/// Whether at most one argument is read from the body.
#[must_use]
pub const fn one_body_at_most(bodies: &[bool]) -> bool {
    let mut count = 0;
    let mut index = 0;
    while index < bodies.len() {
        if bodies[index] {
            count += 1;
        }
        index += 1;
    }
    count <= 1
}

/// Returns the function pointers of a handler.
#[must_use]
pub const fn pointers<H: StaticHandler<N>, const N: usize>() -> HandlerPointers {
    HandlerPointers { call: call::<H, N>, check: H::check }
}

fn call<H: StaticHandler<N>, const N: usize>(delivery: Delivery) -> BoxFuture<'static, Outcome> {
    Box::pin(async move { H::handler(&delivery).await })
}
