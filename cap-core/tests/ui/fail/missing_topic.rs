use cap_core::cap_subscribe;

#[cap_subscribe]
async fn paid(_order: u64) {}

#[cap_subscribe(group = "billing")]
async fn billed(_order: u64) {}

fn main() {}
