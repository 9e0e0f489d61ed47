use cap_core::cap_subscribe;

#[cap_subscribe("order.paid")]
async fn paid(order: u64) -> u64 {
    order
}

fn main() {}
