use cap_core::cap_subscribe;

#[cap_subscribe("order.paid", retry = "5s")]
async fn paid(order: u64) {
    println!("{order}");
}

fn main() {}
