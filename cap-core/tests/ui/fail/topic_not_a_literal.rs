use cap_core::cap_subscribe;

const PAID: &str = "order.paid";

#[cap_subscribe(PAID)]
async fn paid(_order: u64) {}

#[cap_subscribe(topic = "order.billed")]
async fn billed(_order: u64) {}

fn main() {}
