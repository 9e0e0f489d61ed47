use cap_core::cap_subscribe;

#[cap_subscribe("order.paid")]
async fn paid(order: u64) -> Result<(), Box<dyn std::error::Error>> {
    println!("{order}");
    Ok(())
}

fn main() {}
