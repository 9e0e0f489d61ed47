use cap_core::{cap_subscribe, cap_subscriber};

struct Orders;

#[cap_subscriber("order")]
impl Orders {
    #[cap_subscribe("paid")]
    async fn paid(&self, order: u64, customer: String) {
        println!("{order} of {customer}");
    }
}

fn main() {}
