use cap_core::cap_subscribe;

struct NoStock;

#[cap_subscribe("order.paid")]
async fn paid(order: u64) -> Result<(), NoStock> {
    drop(order);
    Err(NoStock)
}

fn main() {}
