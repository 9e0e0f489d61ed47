//! How handlers are declared, given their arguments, and answered for.

mod activity;
mod argument;
mod cap_headers;
mod delivery;
mod error;
mod function;
mod handler;
mod layer;
mod registry;
mod reply;
mod state;
pub(crate) mod static_handler;
#[cfg(feature = "tower")]
mod tower;
mod worker;

pub(crate) use activity::{Activity, busy, forgive};
pub use argument::{Attempt, Cancelled, FromDelivery, RawBody, Topic};
pub use cap_headers::CapHeaders;
pub(crate) use delivery::DeliveryParts;
pub use delivery::{Completion, Delivery, Enlisted};
pub use error::{Classify, HandlerError, HandlerErrorKind};
pub use function::HandlerFn;
pub(crate) use handler::ErasedHandler;
pub use handler::{BoxFuture, HandlerPointers, Submission, Subscribe, Subscription, SubscriptionOptions};
pub use layer::{Layer, Next, layer_fn};
pub(crate) use registry::{Group, Member, Registration, build_groups, count_by_package};
pub(crate) use reply::{Callback, ResponseControl, serialise};
pub use reply::{IntoOutcome, Outcome, Reply, Response};
pub(crate) use state::StorageView;
pub use state::{CheckContext, State, States};
#[cfg(feature = "tower")]
pub use tower::{NextService, TowerLayer};
pub use worker::Worker;
pub(crate) use worker::{Done, Job, Jobs, Ticket};
