//! Arguments, patterns, results, visibilities and places.

use std::sync::Arc;

use cap_core::{
    Attempt, CapHeaders, FromDelivery, HandlerError, Payload, RawBody, Reply, State, Topic, cap_subscribe,
    cap_subscriber,
};

struct Stock {
    left: u64,
}

#[cap_subscribe("none")]
async fn nothing() {}

#[cap_subscribe("patterns")]
async fn patterns(
    State(stock): State<Stock>,
    mut order: Vec<u64>,
    Attempt(attempt): Attempt2,
    _: CapHeaders,
    RawBody(body): RawBody,
    Topic(topic): Topic,
) -> Result<Reply<u64>, std::io::Error> {
    order.push(stock.left + u64::from(attempt) + body.len() as u64 + topic.len() as u64);
    Ok(Reply(order.iter().sum()))
}

#[cap_subscribe("marked")]
async fn marked_payload(Payload(order): Payload<Vec<u64>>, _: Topic) -> Reply<u64> {
    Reply(order.iter().sum())
}

/// Another name of an argument.
type Attempt2 = Attempt;

/// An argument of the application's own.
struct Tenant(String);

impl FromDelivery for Tenant {
    async fn from_delivery(delivery: &cap_core::Delivery) -> Result<Self, HandlerError> {
        Ok(Self(delivery.group().to_owned()))
    }
}

#[cap_subscribe("own")]
async fn own_argument(Tenant(tenant): Tenant) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    drop(tenant);
    Err("no".into())
}

#[cap_subscribe("state")]
async fn static_reference(State(text): State<&'static str>) -> Reply<Option<u64>> {
    Reply(text.parse().ok())
}

#[cap_subscribe("unnamed")]
async fn unnamed() -> impl cap_core::IntoOutcome {
    Reply(1)
}

#[cap_subscribe("unnamed")]
async fn partly_unnamed() -> Result<impl cap_core::IntoOutcome, HandlerError> {
    Ok(Reply(1))
}

#[cap_subscribe("state")]
async fn borrows_nothing(
    State(text): State<fn(&str) -> &str>,
    State(any): State<Vec<Box<dyn Fn(&u8) + Send + Sync>>>,
) {
    drop((text, any));
}

mod deep {
    pub mod down {
        #[cap_core::cap_subscribe("visible")]
        #[cap_core::cap_subscribe("in.the.crate")]
        pub(crate) async fn visible(_order: u64) {}

        #[cap_core::cap_subscribe("private")]
        async fn private(_order: u64) {}

        #[cap_core::cap_subscribe("wide")]
        pub async fn wide(_order: u64) {}
    }
}

// One `use` brings the function and its subscriptions.
use deep::down::{visible, wide};

#[cap_subscribe("raw")]
async fn r#type(r#in: u64) -> Reply<u64> {
    Reply(r#in)
}

// These are names in what the macros write.
#[cap_subscribe("named")]
async fn delivery(_order: u64) {}

#[cap_subscribe("named")]
async fn context(_order: u64) {}

#[cap_subscribe("named")]
async fn handler(_order: u64) {}

#[cap_subscribe("named")]
async fn policy(_order: u64) {}

macro_rules! subscribed {
    ($name:ident, $topic:literal, $group:expr, $argument:ty, $returned:ty) => {
        #[cap_subscribe($topic, group = $group)]
        async fn $name(argument: $argument) -> $returned {
            Reply(argument)
        }
    };
}

subscribed!(by_macro, "by.macro", "written", Vec<u64>, Reply<Vec<u64>>);

/// Also inside of a function.
fn inside() -> usize {
    #[cap_subscribe("inside")]
    async fn nested(_order: u64) {}

    nested::SUBSCRIPTIONS.len()
}

mod orders {
    #[derive(Default)]
    pub(crate) struct Orders<T> {
        pub(crate) kept: T,
    }

    #[derive(serde::Deserialize)]
    pub(crate) struct Order;
}

#[cap_subscriber("orders")]
impl orders::Orders<Vec<u8>> {
    const LIMIT: usize = 3;

    #[cap_subscribe("paid")]
    pub(crate) async fn paid(&self, State(this): State<Self>, _: orders::Order) -> Reply<usize> {
        Reply(self.kept.len() + this.kept.len() + Self::LIMIT)
    }

    #[cap_subscribe("billed")]
    #[cap_subscribe("sent")]
    #[cap_subscribe("all.#", partial = false)]
    async fn r#type(&self) -> Result<(), HandlerError> {
        Ok(())
    }

    fn not_a_handler(self: Arc<Self>) {}
}

fn main() {
    assert_eq!(visible::SUBSCRIPTIONS.len(), 2);
    assert_eq!(wide::SUBSCRIPTIONS.len(), 1);
    assert_eq!(deep::down::visible::SUBSCRIPTIONS[1].topic, "in.the.crate");
    assert_eq!(r#type::SUBSCRIPTIONS[0].function.rsplit("::").next(), Some("type"));
    assert_eq!(inside(), 1);
    let orders = Arc::new(orders::Orders::<Vec<u8>>::default());
    orders.not_a_handler();
    assert_eq!(orders::Orders::<Vec<u8>>::SUBSCRIPTIONS.len(), 4);
    drop(wide(1));
}
