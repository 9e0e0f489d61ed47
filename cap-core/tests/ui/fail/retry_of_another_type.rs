use cap_core::cap_subscribe;

#[cap_subscribe("order.paid", retry = 3)]
async fn paid(order: u64) {
    println!("{order}");
}

fn main() {}
