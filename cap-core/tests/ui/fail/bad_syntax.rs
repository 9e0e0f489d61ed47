use cap_core::cap_subscribe;

#[cap_subscribe("a" group = "g")]
async fn no_comma(_order: u64) {}

#[cap_subscribe("b", "c")]
async fn two_topics(_order: u64) {}

#[cap_subscribe("d", group)]
async fn no_value(_order: u64) {}

#[cap_subscribe(group = "g", "e")]
async fn topic_comes_first(_order: u64) {}

#[cap_subscribe("f", crate = "cap_core")]
async fn crate_is_a_path(_order: u64) {}

fn main() {}
