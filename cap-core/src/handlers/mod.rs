//! Handlers: how they are declared and registered, how they get their arguments, how they run, and what they return.

mod activity;
mod annotated_handlers;
mod cap_headers;
mod function;
mod group_metrics;
mod handler;
mod layer;
mod publisher;
mod registration;
mod reply;
mod run;
pub(crate) mod static_handler;
mod subscribe;
mod subscription_settings;
#[cfg(feature = "tower")]
mod tower;

pub(crate) use activity::{Activity, busy, clear_blocked};
pub use annotated_handlers::Handlers;
pub use cap_adapter::{
    Attempt, BoxFuture, Cancelled, Completion, Enlisted, FromDelivery, Payload, RawBody, Topic,
};
pub use cap_adapter::{CheckContext, Classify, Delivery, HandlerError, HandlerErrorKind, State, States};
pub use cap_headers::CapHeaders;
pub use function::HandlerFn;
pub(crate) use handler::ErasedHandler;
pub use handler::{HandlerPointers, Submission, Subscription};
pub use layer::{Layer, Next, layer_fn};
pub use publisher::Publisher;
pub(crate) use registration::{Group, Member, Registration, build_groups, count_by_package};
pub use reply::{ErrorOfHandler, IntoOutcome, Outcome, Reply, Response};
pub(crate) use run::run_handler;
pub use subscribe::Subscribe;
pub use subscription_settings::SubscriptionOptions;
#[cfg(feature = "tower")]
pub use tower::{NextService, TowerLayer};
