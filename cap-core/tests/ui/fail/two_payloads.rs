use cap_core::{Topic, cap_subscribe};

#[cap_subscribe("order.paid")]
async fn paid(order: u64, topic: Topic, customer: String) {
    println!("{order} of {customer} by {}", topic.0);
}

fn main() {}
