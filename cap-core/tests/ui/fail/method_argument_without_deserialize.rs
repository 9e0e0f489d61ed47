use cap_core::{cap_subscribe, cap_subscriber};

struct Orders;
struct Order;

#[cap_subscriber("order")]
impl Orders {
    #[cap_subscribe("paid")]
    async fn paid(&self, order: Order) {
        drop(order);
    }
}

fn main() {}
