use cap_core::{cap_subscribe, cap_subscriber};

#[cap_subscribe("order.paid")]
struct Paid;

#[cap_subscribe("order.paid")]
impl Paid {}

#[cap_subscriber("order")]
async fn billed(_order: u64) {}

fn main() {}
