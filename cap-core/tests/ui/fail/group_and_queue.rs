use cap_core::{cap_subscribe, cap_subscriber};

#[cap_subscribe("order.paid", group = "shop", queue = "orders.dead")]
async fn both(_order: u64) {}

#[cap_subscribe("order.paid", queue = "orders.dead")]
#[cap_subscribe("order.paid", queue = "orders.dead")]
async fn twice(_order: u64) {}

struct Orders;

#[cap_subscriber("order", group = "shop")]
impl Orders {
    #[cap_subscribe("paid", queue = "orders.dead", group = "audit")]
    async fn paid(&self, _order: u64) {}
}

fn main() {}
