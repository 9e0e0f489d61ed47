use cap_core::cap_subscribe;

#[cap_subscribe("order..paid")]
async fn empty_word(_order: u64) {}

#[cap_subscribe("order paid")]
async fn white_space(_order: u64) {}

#[cap_subscribe("order.p*")]
async fn wildcard_in_a_word(_order: u64) {}

#[cap_subscribe("")]
async fn empty(_order: u64) {}

#[cap_subscribe("order.paid", group = "billing.#")]
async fn group(_order: u64) {}

fn main() {}
