use cap_core::cap_subscribe;

#[cap_subscribe("order.paid")]
async fn paid<T: std::fmt::Debug>(order: T) {
    println!("{order:?}");
}

fn main() {}
