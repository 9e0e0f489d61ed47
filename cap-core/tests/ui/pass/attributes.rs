//! Attributes under other paths, from macros, and beside other attributes.

use cap_core::cap_subscribe as on;
use cap_core::prelude::*;

/// The documentation stays.
#[cap_core::cap_subscribe("a")]
#[cap_subscribe("b")]
#[allow(clippy::unused_async)]
#[::cap_core::cap_subscribe("c")]
#[inline]
async fn three(_order: u64) {}

#[on("d")]
async fn renamed(_order: u64) {}

struct Orders;

#[cap_core::cap_subscriber]
impl Orders {
    #![allow(clippy::unused_self)]

    #[cap_core::cap_subscribe("e")]
    #[cap_subscribe("f")]
    #[inline]
    async fn two(&self, _order: u64) {}
}

fn main() {
    assert_eq!(three::SUBSCRIPTIONS.len(), 3);
    assert_eq!(renamed::SUBSCRIPTIONS.len(), 1);
    assert_eq!(Orders::SUBSCRIPTIONS.len(), 2);
}
