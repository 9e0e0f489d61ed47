//! What is not there is not subscribed to.

use cap_core::{Topic, cap_subscribe, cap_subscriber};

#[cap_subscribe("never")]
#[cfg(any())]
async fn never(_order: NoSuchType) {}

#[cap_subscribe("always")]
#[cfg(all())]
async fn always(_order: u64, #[cfg(any())] _more: NoSuchType, #[cfg(all())] _topic: Topic) {}

struct Orders;

#[cap_subscriber("orders")]
#[cfg(all())]
impl Orders {
    #[cfg(any())]
    #[cap_subscribe("never")]
    async fn never(&self, _order: NoSuchType) {}

    #[cap_subscribe("always")]
    #[cfg(all())]
    async fn always(&self, _order: u64, #[cfg(any())] _more: NoSuchType, #[cfg(all())] _topic: Topic) {}
}

fn main() {
    assert_eq!(always::SUBSCRIPTIONS.len(), 1);
    assert_eq!(Orders::SUBSCRIPTIONS.len(), 1);
}
