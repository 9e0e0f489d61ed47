use cap_core::prelude::*;

#[cap_subscribe("a", retry = broker("5, 30s"))]
async fn no_unit(_order: u64) {}

#[cap_subscribe("a", retry = fixed("10s"))]
async fn no_count(_order: u64) {}

#[cap_subscribe("a", retry = exponential("1s", 10, 3))]
async fn no_limit(_order: u64) {}

#[cap_subscribe("a", queue = 3)]
async fn no_queue(_order: u64) {}

#[cap_subscribe("a", circuit = 3)]
async fn no_breaker(_order: u64) {}

#[cap_subscribe("a", classify = 3)]
async fn no_classifier(_order: u64) {}

fn main() {}
