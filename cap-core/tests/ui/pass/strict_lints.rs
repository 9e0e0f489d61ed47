//! The macros' own code is nobody's warning.

#![forbid(unsafe_code)]
#![deny(
    warnings,
    missing_docs,
    missing_debug_implementations,
    missing_copy_implementations,
    unreachable_pub,
    unused,
    unused_qualifications,
    unused_results,
    unused_lifetimes,
    single_use_lifetimes,
    elided_lifetimes_in_paths,
    let_underscore_drop,
    trivial_casts,
    unnameable_types,
    rust_2018_idioms,
    nonstandard_style,
    future_incompatible,
    deprecated
)]

use cap_core::{Reply, State, Topic, cap_subscribe, cap_subscriber};

#[cap_subscribe("a", retry = cap_core::RetryPolicy::never())]
async fn private(_order: u64) {}

/// Says something.
#[cap_subscribe("b", timeout = "3s")]
#[cap_subscribe("c", concurrency = 3)]
pub async fn public(order: u64, Topic(_): Topic) -> Reply<u64> {
    Reply(order)
}

#[cap_subscribe("old")]
#[deprecated]
async fn old(_order: u64) {}

#[cap_subscribe("must")]
#[must_use]
async fn must(_order: u64) -> Result<(), std::io::Error> {
    Ok(())
}

mod inner {
    use cap_core::cap_subscribe;

    #[cap_subscribe("d")]
    pub(crate) async fn in_the_crate(_order: u64) {}
}

/// Has methods.
#[derive(Debug, Clone, Copy)]
pub struct Orders;

#[cap_subscriber("orders")]
impl Orders {
    #[cap_subscribe("paid")]
    async fn private(&self, State(this): State<Orders>) -> Reply<u64> {
        drop(this);
        Reply(1)
    }

    /// Says something.
    #[cap_subscribe("billed", retry = cap_core::RetryPolicy::never())]
    #[cap_subscribe("sent")]
    pub async fn public(&self, _order: u64) {}
}

fn main() {
    drop(inner::in_the_crate(1));
}
