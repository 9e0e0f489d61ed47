use cap_core::{cap_subscribe, cap_subscriber};

struct Orders;

#[cap_subscriber("order")]
impl Orders {
    #[cap_subscribe("paid")]
    async fn paid(&mut self, _order: u64) {}

    #[cap_subscribe("billed")]
    async fn billed(self, _order: u64) {}

    #[cap_subscribe("sent")]
    async fn sent(_order: u64) {}
}

fn main() {}
