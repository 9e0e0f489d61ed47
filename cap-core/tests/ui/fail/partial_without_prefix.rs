use cap_core::{cap_subscribe, cap_subscriber};

struct Orders;

#[cap_subscriber]
impl Orders {
    #[cap_subscribe("paid", partial = true)]
    async fn paid(&self, _order: u64) {}
}

#[cap_subscribe("order.billed", partial = true)]
async fn billed(_order: u64) {}

fn main() {}
