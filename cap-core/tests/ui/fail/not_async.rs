use cap_core::cap_subscribe;

#[cap_subscribe("order.paid")]
fn paid(order: u64) {
    println!("{order}");
}

fn main() {}
