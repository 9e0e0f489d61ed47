//! An application that knows cap-core under another name.

mod vendored {
    pub(crate) mod bus {
        pub(crate) use cap_core::*;
    }
}

use vendored::bus::{cap_subscribe, cap_subscriber};

#[cap_subscribe("a", crate = crate::vendored::bus)]
#[cap_subscribe("b")]
async fn handle(_order: u64, _topic: vendored::bus::Topic) {}

mod elsewhere {
    #[crate::vendored::bus::cap_subscribe("c", crate = super::vendored::bus)]
    async fn handle(_order: u64) {}
}

struct Orders;

#[cap_subscriber("orders", crate = vendored::bus)]
impl Orders {
    #[cap_subscribe("paid", retry = vendored::bus::RetryPolicy::never())]
    async fn paid(&self, _order: u64, _topic: vendored::bus::Topic) {}
}

fn main() {}
