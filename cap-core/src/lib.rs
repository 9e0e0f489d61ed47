//! A distributed event bus with an outbox and an inbox, modeled on .NET's CAP.
//!
//! A message is stored in the *outbox* of the publishing service before it is sent to the broker, and in the *inbox* of the
//! receiving service before it is acknowledged. A committed message is therefore delivered at least once to every subscribed
//! group, whatever crashes in between; with a transaction as a handler's argument (`PgTx`, `SqliteTx`) its effects are
//! applied exactly once. Failed attempts are retried, and messages that cannot succeed are parked until an operator acts.
//!
//! This crate is the engine. Adapters for databases and brokers are separate crates, such as `cap-postgres` and
//! `cap-rabbitmq`; the in-memory storage and transport of this crate need no installation and are used in the examples.
//!
//! # Example
//!
//! ```standalone_crate
//! use cap_core::prelude::*;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Placed { order: u64 }
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Reserved { order: u64, shelf: String }
//!
//! // The stock service. Its reply is published to the callback topic.
//! #[cap_subscribe("order.placed", group = "stock")]
//! async fn reserve(placed: Placed) -> Reply<Reserved> {
//!     Reply(Reserved { order: placed.order, shelf: "B7".to_owned() })
//! }
//!
//! // The order service, which receives the reply.
//! #[cap_subscribe("order.reserved", group = "orders")]
//! async fn reserved(reply: Reserved, State(done): State<tokio::sync::mpsc::Sender<Reserved>>) {
//!     let _ = done.send(reply).await;
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (done, mut replies) = tokio::sync::mpsc::channel(1);
//! let cap = Cap::builder()
//!     .storage(MemoryStorage::new())
//!     .transport(MemoryTransport::new())
//!     .state(done)
//!     .start()
//!     .await?;
//!
//! cap.publish("order.placed", &Placed { order: 7 }).callback("order.reserved").await?;
//!
//! assert_eq!(replies.recv().await, Some(Reserved { order: 7, shelf: "B7".to_owned() }));
//! cap.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Publishing
//!
//! [`Cap::publish`] stores a message in the outbox, and the relay sends it to the broker. [`Publish::within`] stores it
//! in a transaction of the application on the same database, so that it is sent if and only if that transaction commits.
//! Both return once the message is stored and never wait for the broker.
//!
//! - [`Cap::publish_all`] stores several messages in one round trip.
//! - [`Publish::delay`] publishes a message later.
//! - [`Publisher`] publishes a message together with the success of a handler.
//!
//! # Handlers
//!
//! A handler is an async function that is annotated with [`cap_subscribe`] or passed to [`CapBuilder::subscribe`]. Its
//! arguments are extracted from the delivery by their types, in any order: at most one payload of any type that implements
//! `Deserialize` (or that type in a [`Payload`]), and any of [`CapHeaders`], [`State`], [`RawBody`], [`MessageId`], [`Topic`], [`Attempt`], [`Cancelled`],
//! [`Publisher`], [`Cap`], [`Delivery`], and the arguments of adapters. It returns `()`, [`Reply`], or a `Result` of
//! either. With [`cap_subscriber`], methods are handlers as well. [`Layer`]s are middleware around all handlers.
//!
//! Every *group* receives each message, and the handlers of a group share its messages across all processes. Topic patterns
//! may contain the wildcards `*` (exactly one word) and `#` (any number of words). Within a group, the handler with the
//! most specific pattern gets the message.
//!
//! A handler must not block its thread, because that blocks other tasks of the runtime as well. Long computations and
//! blocking calls belong in `tokio::task::spawn_blocking`. If a handler blocks nevertheless, storages that renew leases
//! [on a separate thread](storage::Storage::apart) keep the lease of its message until
//! [`CapOptions::runtime_dead_after`], and the handler is named in the log.
//!
//! # When a handler fails
//!
//! An error, a panic or a timeout counts as a failed attempt, and the [`RetryPolicy`] determines when the next attempt is
//! made. The default is CAP's: 3 immediate attempts, the next after 4 minutes, then one a minute, 50 in all. With
//! [`HandlerError`] a handler can also say that an error is permanent, that the work was cancelled, or when to retry.
//!
//! When a message has failed for good, [`CapBuilder::on_failed`] is called, and the message is parked until an operator
//! fixes the cause and re-runs it, through [`Cap::messages`]. A [`CircuitBreaker`] pauses a handler whose dependency is down. With
//! [`RetryPolicy::broker`], messages wait at the broker for their next attempt.
//!
//! A handler runs again for the same message only if it failed, or if its process died or lost its lease while it ran. To
//! rule out that its effects are applied twice, take an adapter's transaction as an argument (`PgTx` of `cap-postgres`,
//! `SqliteTx` of `cap-sqlite`): the handler's effects, the completion of the message, and everything that the handler
//! publishes are then committed together.
//!
//! # When the storage or the broker is unavailable
//!
//! While the storage or the broker is unavailable, at the start or later, work is delayed and no attempts are counted.
//! Memory is bounded: messages that the relay has no room for wait in the storage, and messages that handlers have no
//! capacity for wait at the broker. [`Cap::health`] reports which components are down, since when, and how many messages
//! are waiting.
//!
//! # Adapters
//!
//! An adapter for a database implements [`storage::Storage`] and [`monitor::Monitor`]; an adapter for a broker implements
//! [`transport::Transport`]. Both must pass the tests of `cap-conformance`.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `tower` | `TowerLayer`, which wraps handlers in tower's layers |

mod bus;
mod consume;
mod handlers;
mod maintenance;
mod operate;
pub mod prelude;
mod publish;
mod runtime;
mod writer;

#[doc(hidden)]
pub use cap_adapter::faults;
pub use cap_adapter::{error, message, monitor, storage, transport};
pub use cap_memory as memory;

pub use bus::{Cap, CapBuilder, Failure, ShutdownError};
pub use cap_adapter::UnverifiedTransport;
pub use cap_adapter::{AfterCommit, Bus, Within};
pub use cap_adapter::{NextAttempt, RetryPolicy};
pub use cap_macros::{cap_subscribe, cap_subscriber};
pub use error::{BoxError, PublishError, StartError};
pub use handlers::{
    Attempt, BoxFuture, Cancelled, CapHeaders, CheckContext, Classify, Completion, Delivery, Enlisted,
    ErrorOfHandler, FromDelivery, HandlerError, HandlerErrorKind, HandlerFn, HandlerPointers, Handlers,
    IntoOutcome, Layer, Next, Outcome, Payload, Publisher, RawBody, Reply, Response, State, States,
    Submission, Subscribe, Subscription, SubscriptionOptions, Topic, layer_fn,
};
#[cfg(feature = "tower")]
pub use handlers::{NextService, TowerLayer};
pub use message::{Headers, Message, MessageId, message_id};
pub use operate::messages::Messages;
#[allow(deprecated)]
pub use operate::monitor::BusMonitor;
pub use operate::operator::Operator;
pub use operate::operator_publish::OperatorPublish;
pub use publish::{MessageBatch, Publish, PublishAll};
pub use runtime::callback_policy::CallbackNotAllowed;
pub use runtime::circuit::{CircuitBreaker, CircuitHealth, CircuitState};
pub use runtime::health::{Component, FullDestination, GroupHealth, Health, Phase};
pub use runtime::metric_names;
pub use runtime::options::{CapOptions, Unrouted};

/// The former name of [`AfterCommit`].
#[deprecated(note = "renamed to AfterCommit")]
pub type Handover = AfterCommit;

/// The former name of [`Messages`].
#[deprecated(note = "renamed to Messages")]
pub type Parked = Messages;

/// Links crates that contain handlers into this program.
///
/// Annotated handlers register themselves if their crate is linked. The compiler does not link a crate that no code refers
/// to, and gives no warning; this macro refers to it. A program without any handlers does not start, and
/// [`Handlers::expecting`] detects a single missing crate.
///
/// ```
/// cap_core::link_handlers!(std);
/// ```
#[macro_export]
macro_rules! link_handlers {
    ($($krate:ident),+ $(,)?) => {
        $(use $krate as _;)+
    };
}

/// Items that the code generated by the macros refers to; exempt from semantic versioning.
#[doc(hidden)]
pub mod __private {
    pub use inventory;

    pub use crate::RetryPolicy;
    pub use crate::handlers::Classify;
    pub use crate::handlers::static_handler::{
        HandlerArgument, StaticHandler, check, check_instance, instance, one_body_at_most, pointers, take,
        takes_body,
    };
    pub use crate::handlers::{
        CheckContext, Delivery, IntoOutcome, Outcome, Submission, Subscription, SubscriptionOptions,
    };
    pub use crate::runtime::callback_policy::CallbackNotAllowed;
    pub use crate::runtime::circuit::CircuitBreaker;
}
