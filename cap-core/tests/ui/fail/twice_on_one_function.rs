use cap_core::cap_subscribe;

#[cap_subscribe("order.paid")]
#[cap_subscribe("order.billed")]
#[cap_subscribe("order.paid", timeout = "3s")]
async fn paid(_order: u64) {}

fn main() {}
