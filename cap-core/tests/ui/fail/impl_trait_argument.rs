use cap_core::cap_subscribe;

#[cap_subscribe("order.paid")]
async fn paid(order: impl std::fmt::Debug) {
    println!("{order:?}");
}

fn main() {}
