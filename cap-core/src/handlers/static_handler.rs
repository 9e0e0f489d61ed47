//! A handler that is known while the program compiles: what the attributes write, and how it becomes pointers.
//!
//! All of this is exempt from semantic versioning. The attributes write as little as they can, so that the loop around
//! a handler and the ways to its arguments are ordinary code, here.

use std::future::Future;
use std::sync::Arc;

use super::handler::HandlerPointers;
use super::reply::Outcome;
use cap_adapter::BoxFuture;
use cap_adapter::CheckContext;
use cap_adapter::Delivery;
use cap_adapter::FromDelivery;
use cap_adapter::HandlerError;

/// One annotated function. It is implemented for a type of the function's own name, or for the type whose method it
/// is; `N` tells the methods of one type apart.
pub trait StaticHandler<const N: usize>: 'static {
    /// For each argument whether it is read from the body.
    const BODIES: &'static [bool];

    /// Takes the arguments from the delivery, runs the function, and turns what it returns into an outcome. Its name
    /// is seen by whoever writes a handler that is not `Send`.
    fn handler(delivery: &Delivery) -> impl Future<Output = Outcome> + Send;

    /// Whether every argument can be had.
    ///
    /// # Errors
    ///
    /// A sentence that goes on after the function's name.
    fn check(context: &CheckContext<'_>) -> Result<(), String>;
}

/// Argument `I` of the handler `N`.
///
/// An argument's type is written once, here, and reached through the functions below, which take it for granted: so
/// the compiler has one place to complain of a type that cannot be an argument, and complains once.
pub trait HandlerArgument<const N: usize, const I: usize> {
    /// Its type.
    type Wanted: FromDelivery;
}

/// Whether an argument is read from the body.
#[must_use]
pub const fn takes_body<H: HandlerArgument<N, I>, const N: usize, const I: usize>() -> bool {
    H::Wanted::TAKES_BODY
}

/// Whether an argument can be had.
///
/// # Errors
///
/// A sentence that goes on after the function's name.
pub fn check<H: HandlerArgument<N, I>, const N: usize, const I: usize>(
    context: &CheckContext<'_>,
) -> Result<(), String> {
    H::Wanted::check(context)
}

/// Takes an argument from a delivery.
///
/// # Errors
///
/// Counts as the handler's own error would.
pub fn take<H: HandlerArgument<N, I>, const N: usize, const I: usize>(
    delivery: &Delivery,
) -> impl Future<Output = Result<H::Wanted, HandlerError>> + Send {
    H::Wanted::from_delivery(delivery)
}

/// Whether the instance of a method can be had.
///
/// # Errors
///
/// A sentence that goes on after the method's name.
pub fn check_instance<T: 'static>(context: &CheckContext<'_>) -> Result<(), String> {
    context.require_instance::<T>()
}

/// The instance to call a method on.
///
/// # Errors
///
/// When there is none, which the check at start-up has ruled out.
pub fn instance<T: Send + Sync + 'static>(delivery: &Delivery) -> Result<Arc<T>, HandlerError> {
    delivery.instance()
}

/// Whether so many arguments can be read from one body.
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

/// The pointers of a handler.
#[must_use]
pub const fn pointers<H: StaticHandler<N>, const N: usize>() -> HandlerPointers {
    HandlerPointers { call: call::<H, N>, check: H::check }
}

fn call<H: StaticHandler<N>, const N: usize>(delivery: Delivery) -> BoxFuture<'static, Outcome> {
    Box::pin(async move { H::handler(&delivery).await })
}
