//! Every way to say when a failed attempt is repeated, and what its error means.

#![deny(warnings, missing_docs)]

use cap_core::prelude::*;

#[cap_subscribe("a", group = "g1", retry = broker("5s, 30s, 2m, 10m"))]
async fn at_the_broker(_order: u64) {}

#[cap_subscribe("a", group = "g2", retry = delays("5s,1h 30m"))]
async fn by_list(_order: u64) {}

#[cap_subscribe("a", group = "g3", retry = fixed("10s", 5))]
async fn fixed_pauses(_order: u64) {}

#[cap_subscribe("a", group = "g4", retry = exponential("1s", "10m", 20), circuit = CircuitBreaker::after(5))]
async fn doubling(_order: u64) {}

fn classify(error: HandlerError) -> HandlerError {
    error.outage()
}

#[cap_subscribe("a", group = "g5", classify = classify)]
async fn classified(_order: u64) {}

#[cap_subscribe("#", queue = "orders.dead")]
async fn dead_letters(_order: u64) {}

mod own {
    use cap_core::RetryPolicy;
    /// A function of the caller's that has a short form's name.
    pub(crate) fn fixed(attempts: u32) -> RetryPolicy {
        RetryPolicy::fixed(std::time::Duration::from_secs(1), attempts)
    }
}
use own::fixed;

#[cap_subscribe("a", group = "g6", retry = fixed(3))]
async fn own_function(_order: u64) {}

fn main() {
    let policy = |subscriptions: &[cap_core::Subscription]| subscriptions[0].options.retry.unwrap()();
    let seconds = std::time::Duration::from_secs;
    assert_eq!(
        policy(at_the_broker::SUBSCRIPTIONS),
        RetryPolicy::broker([seconds(5), seconds(30), seconds(120), seconds(600)])
    );
    assert_eq!(policy(by_list::SUBSCRIPTIONS), RetryPolicy::delays([seconds(5), seconds(5400)]));
    assert_eq!(policy(fixed_pauses::SUBSCRIPTIONS), RetryPolicy::fixed(seconds(10), 5));
    assert_eq!(policy(doubling::SUBSCRIPTIONS), RetryPolicy::exponential(seconds(1), seconds(600), 20));
    assert_eq!(policy(own_function::SUBSCRIPTIONS), RetryPolicy::fixed(seconds(1), 3));
    assert!(classified::SUBSCRIPTIONS[0].options.classify.is_some());
    assert_eq!(doubling::SUBSCRIPTIONS[0].options.circuit.unwrap()(), CircuitBreaker::after(5));
    assert_eq!(dead_letters::SUBSCRIPTIONS[0].options.queue, Some("orders.dead"));
}
