use std::borrow::Cow;

use cap_core::cap_subscribe;

#[cap_subscribe("order.paid")]
async fn paid(order: &str) {
    println!("{order}");
}

#[cap_subscribe("order.billed")]
async fn billed(order: Vec<Option<&[u8]>>) {
    println!("{order:?}");
}

#[cap_subscribe("order.sent")]
async fn sent(order: (u64, Cow<'_, str>)) {
    println!("{order:?}");
}

fn main() {}
