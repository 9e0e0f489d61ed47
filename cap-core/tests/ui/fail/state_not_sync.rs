use std::cell::RefCell;

use cap_core::{State, cap_subscribe};

#[cap_subscribe("order.paid")]
async fn paid(State(count): State<RefCell<u64>>, order: u64) {
    *count.borrow_mut() += order;
}

fn main() {}
