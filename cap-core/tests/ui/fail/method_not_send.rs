use std::rc::Rc;

use cap_core::{cap_subscribe, cap_subscriber};

struct Orders {
    count: Rc<u64>,
}

#[cap_subscriber("order")]
impl Orders {
    #[cap_subscribe("paid")]
    async fn paid(&self, order: u64) {
        println!("{order} of {}", self.count);
    }
}

fn main() {}
