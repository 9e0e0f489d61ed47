use cap_core::cap_subscribe;

#[cap_subscribe("a", timeout = "3 parsecs")]
async fn unit(_order: u64) {}

#[cap_subscribe("b", timeout = 30)]
async fn no_unit(_order: u64) {}

#[cap_subscribe("c", timeout = "0s")]
async fn nothing(_order: u64) {}

#[cap_subscribe("d", concurrency = 0)]
async fn never(_order: u64) {}

#[cap_subscribe("e", concurrency = 65536)]
async fn too_many(_order: u64) {}

#[cap_subscribe("f", group = 7)]
async fn group(_order: u64) {}

#[cap_subscribe("g", order_by = "")]
async fn no_header(_order: u64) {}

fn main() {}
