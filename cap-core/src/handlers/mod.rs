//! How handlers are declared, given their arguments, and answered for.

mod activity;
mod attempt_data;
mod cap_headers;
mod function;
mod handler;
mod layer;
mod registration;
mod reply;
pub(crate) mod static_handler;
#[cfg(feature = "tower")]
mod tower;
mod worker;

pub(crate) use activity::{Activity, busy, forgive};
pub(crate) use attempt_data::{EnginePart, next_attempt};
pub use cap_adapter::{Attempt, BoxFuture, Cancelled, Completion, Enlisted, FromDelivery, RawBody, Topic};
pub use cap_adapter::{CheckContext, Classify, Delivery, HandlerError, HandlerErrorKind, State, States};
pub use cap_headers::CapHeaders;
pub use function::HandlerFn;
pub(crate) use handler::ErasedHandler;
pub use handler::{HandlerPointers, Submission, Subscribe, Subscription, SubscriptionOptions};
pub use layer::{Layer, Next, layer_fn};
pub(crate) use registration::{Group, Member, Registration, build_groups, count_by_package};
pub(crate) use reply::{Callback, ResponseControl, serialise};
pub use reply::{IntoOutcome, Outcome, Reply, Response};
#[cfg(feature = "tower")]
pub use tower::{NextService, TowerLayer};
pub use worker::Worker;
pub(crate) use worker::{Done, Job, Jobs, Ticket};
