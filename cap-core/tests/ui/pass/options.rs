//! Every option, alone and together.

use std::time::Duration;

use cap_core::{RetryPolicy, cap_subscribe, cap_subscriber};

mod policies {
    pub(super) fn patient() -> cap_core::RetryPolicy {
        cap_core::RetryPolicy::never()
    }
}

const ATTEMPTS: u32 = 5;

#[cap_subscribe("a")]
async fn topic_alone(_order: u64) {}

#[cap_subscribe("a.*.c.#", group = "billing")]
async fn with_group(_order: u64) {}

#[cap_subscribe("a", group = "g1", concurrency = 65535)]
async fn with_concurrency(_order: u64) {}

#[cap_subscribe("a", group = "g2", timeout = "1m 30s")]
async fn with_timeout(_order: u64) {}

#[cap_subscribe("a", group = "g3", retry = RetryPolicy::fixed(Duration::from_secs(1), ATTEMPTS))]
async fn with_retry(_order: u64) {}

#[cap_subscribe("a", group = "g4", retry = if ATTEMPTS > 3 { policies::patient() } else { RetryPolicy::never() })]
async fn with_computed_retry(_order: u64) {}

#[cap_subscribe("a", group = "g5", order_by = "customer")]
async fn with_order(_order: u64) {}

#[cap_subscribe("a", group = "g6", crate = cap_core)]
async fn with_crate(_order: u64) {}

#[cap_subscribe(
    "a",
    group = "g7",
    concurrency = 4,
    timeout = "30s",
    retry = policies::patient(),
    order_by = "customer",
    crate = ::cap_core,
)]
async fn with_all(_order: u64) {}

struct Orders;

#[cap_subscriber("orders", group = "g8", crate = ::cap_core)]
impl Orders {
    #[cap_subscribe(
        "all",
        group = "g9",
        concurrency = 4,
        timeout = "250ms",
        retry = Self::policy(),
        order_by = "customer",
        partial = false,
    )]
    async fn with_all(&self, _order: u64) {}

    #[cap_subscribe("all", partial = true)]
    async fn with_prefix(&self) {}

    fn policy() -> RetryPolicy {
        RetryPolicy::never()
    }
}

fn main() {}
