use cap_core::cap_subscribe;

struct Orders;

impl Orders {
    #[cap_subscribe("order.paid")]
    async fn paid(&self, order: u64) {
        println!("{order}");
    }
}

fn main() {}
