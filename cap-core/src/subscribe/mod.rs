//! How handlers are declared, given their arguments, and answered for.

mod activity;
mod cap_headers;
mod engine_part;
mod function;
mod handler;
mod layer;
mod registry;
mod reply;
pub(crate) mod static_handler;
#[cfg(feature = "tower")]
mod tower;
mod worker;

pub(crate) use activity::{Activity, busy, forgive};
pub use cap_adapter::{Attempt, BoxFuture, Cancelled, Completion, Enlisted, FromDelivery, RawBody, Topic};
pub use cap_adapter::{CheckContext, Classify, Delivery, HandlerError, HandlerErrorKind, State, States};
pub use cap_headers::CapHeaders;
pub(crate) use engine_part::{EnginePart, next_attempt};
pub use function::HandlerFn;
pub(crate) use handler::ErasedHandler;
pub use handler::{HandlerPointers, Submission, Subscribe, Subscription, SubscriptionOptions};
pub use layer::{Layer, Next, layer_fn};
pub(crate) use registry::{Group, Member, Registration, build_groups, count_by_package};
pub(crate) use reply::{Callback, ResponseControl, serialise};
pub use reply::{IntoOutcome, Outcome, Reply, Response};
#[cfg(feature = "tower")]
pub use tower::{NextService, TowerLayer};
pub use worker::Worker;
pub(crate) use worker::{Done, Job, Jobs, Ticket};
