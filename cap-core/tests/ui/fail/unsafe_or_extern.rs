use cap_core::cap_subscribe;

#[cap_subscribe("order.paid")]
async unsafe fn paid(_order: u64) {}

#[cap_subscribe("order.billed")]
async extern "C" fn billed(_order: u64) {}

fn main() {}
