use cap_core::{Reply, cap_subscribe};

struct Receipt;

#[cap_subscribe("order.paid")]
async fn paid(_order: u64) -> Reply<Receipt> {
    Reply(Receipt)
}

fn main() {}
