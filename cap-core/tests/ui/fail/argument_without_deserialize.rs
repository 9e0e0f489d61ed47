use cap_core::cap_subscribe;

struct Order;

#[cap_subscribe("order.paid")]
async fn paid(order: Order) {
    drop(order);
}

fn main() {}
