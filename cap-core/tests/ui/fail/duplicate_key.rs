use cap_core::cap_subscribe;

#[cap_subscribe("order.paid", group = "billing", timeout = "3s", group = "audit")]
async fn paid(order: u64) {
    println!("{order}");
}

fn main() {}
