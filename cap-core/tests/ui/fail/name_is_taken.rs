use cap_core::cap_subscribe;

mod paid {}

#[cap_subscribe("order.paid")]
async fn paid(_order: u64) {}

fn main() {}
