//! Nothing in the user's scope changes what the macros mean.

#![allow(unused, non_camel_case_types)]

use cap_core::{cap_subscribe, cap_subscriber};

struct Result;
struct Option;
struct Box;
struct String;
struct Duration;
struct Subscription;
struct Delivery;
enum Shadow {
    Ok,
    Err,
    Some,
    None,
}
use Shadow::{Err, None, Ok, Some};

trait FromDelivery {}
trait IntoOutcome {}
trait Send {}
trait Future {}

mod core {}
mod std {}
mod alloc {}
mod inventory {}

macro_rules! assert {
    ($($any:tt)*) => {
        compile_error!("shadowed")
    };
}
macro_rules! concat {
    ($($any:tt)*) => {
        compile_error!("shadowed")
    };
}
macro_rules! env {
    ($($any:tt)*) => {
        compile_error!("shadowed")
    };
}

type bool = ();
type usize = ();
type str = ();

#[cap_subscribe("a", group = "g", concurrency = 1, timeout = "1s", retry = cap_core::RetryPolicy::never(), order_by = "h")]
async fn handle(_topic: cap_core::Topic, _order: u64) -> ::core::result::Result<(), cap_core::HandlerError> {
    ::core::result::Result::Ok(())
}

struct Orders;

#[cap_subscriber("orders", group = "g")]
impl Orders {
    #[cap_subscribe("a", concurrency = 1, timeout = "1s", retry = cap_core::RetryPolicy::never(), order_by = "h")]
    async fn handle(&self, _topic: cap_core::Topic, _order: u64) {}
}

fn main() {}
