use std::rc::Rc;

use cap_core::cap_subscribe;

#[cap_subscribe("order.paid")]
async fn paid(order: u64) {
    let shared = Rc::new(order);
    std::future::ready(()).await;
    println!("{shared}");
}

fn main() {}
