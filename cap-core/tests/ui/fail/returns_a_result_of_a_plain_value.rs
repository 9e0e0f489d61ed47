use cap_core::{HandlerError, cap_subscribe};

#[cap_subscribe("order.paid")]
async fn paid(order: u64) -> Result<u64, HandlerError> {
    Ok(order)
}

fn main() {}
