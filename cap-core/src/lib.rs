//! An event bus for messages that must not be lost, after the model of .NET's CAP.
//!
//! *Committed means delivered; with a handler's transaction, applied once.* A message is stored before it is sent and stored
//! again before it is acknowledged; what fails is tried again, and what cannot succeed waits for an operator. Stores and brokers
//! are crates of their own, such as `cap-postgres` and `cap-rabbitmq`; this one has the bus, and a pair in memory that
//! needs nothing installed.
//!
//! # A whole program
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
//! // The stock service: what it returns goes to whoever asked.
//! #[cap_subscribe("order.placed", group = "stock")]
//! async fn reserve(placed: Placed) -> Reply<Reserved> {
//!     Reply(Reserved { order: placed.order, shelf: "B7".to_owned() })
//! }
//!
//! // The order service, which asked.
//! #[cap_subscribe("order.reserved", group = "orders")]
//! async fn reserved(answer: Reserved, State(done): State<tokio::sync::mpsc::Sender<Reserved>>) {
//!     let _ = done.send(answer).await;
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (done, mut answers) = tokio::sync::mpsc::channel(1);
//! let cap = Cap::builder()
//!     .storage(MemoryStorage::new())
//!     .transport(MemoryTransport::new())
//!     .state(done)
//!     .start()
//!     .await?;
//!
//! cap.publish("order.placed", &Placed { order: 7 }).callback("order.reserved").await?;
//!
//! assert_eq!(answers.recv().await, Some(Reserved { order: 7, shelf: "B7".to_owned() }));
//! cap.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Publishing
//!
//! [`Cap::publish`] stores a message in the outbox; the relay takes it to the broker from there. Inside a transaction of
//! the store's own database, [`Publish::within`] stores it so that it leaves if and only if the transaction commits.
//! Either returns when the message is stored, never waiting for the broker. [`Cap::publish_all`] stores many in one
//! round trip, [`Publish::delay`] one that leaves later, [`Publisher`] one that leaves with the success of the handler
//! that publishes it.
//!
//! # Handlers
//!
//! An async function, annotated with [`cap_subscribe`] or given to [`CapBuilder::subscribe`]. Its arguments say where
//! they come from, in any order: one payload at most, of any type that deserializes, and any of [`CapHeaders`],
//! [`State`], [`RawBody`], [`MessageId`], [`Topic`], [`Attempt`], [`Cancelled`], [`Publisher`], [`Cap`], [`Delivery`], and
//! those of adapters. It returns `()`, [`Reply`], or a `Result` of either. Methods are handlers through [`cap_subscriber`].
//! [`Layer`]s run around all of them.
//!
//! Handlers of one *group* share its messages, whichever process they run in; every group gets each message. Topics may
//! have the wildcards `*`, one word, and `#`, any number of words; the most specific handler of a group gets the message.
//!
//! A handler must not block its thread: what computes for long, or waits without `.await`, keeps the whole runtime waiting
//! and belongs into `tokio::task::spawn_blocking`. One that blocks all the same keeps its message on stores that renew leases
//! [apart](storage::Storage::apart) from the runtime, until [`CapOptions::runtime_dead_after`]; the log names it.
//!
//! # When a handler fails
//!
//! An error, a panic and a time-out count as a failed attempt, and [`RetryPolicy`] says when the next one is. The default
//! is CAP's: three at once, then after four minutes one each minute, fifty in all. [`HandlerError`] says more than
//! "failed": permanent, cancelled, try again after a while. A message that failed for good is told to
//! [`CapBuilder::on_failed`] and waits among the [`Parked`] ones for an operator to repair it and run it again. A
//! [`CircuitBreaker`] pauses a handler whose dependency is down, and [`RetryPolicy::broker`] has the broker keep what waits
//! for its next attempt.
//!
//! A handler runs again only if it failed, or if its process died or lost its lease on the message while it ran. Where even
//! that is too often, an adapter's transaction as an argument (`PgTx` of `cap-postgres`) makes the handler's effects, the mark on the message, and all that
//! it publishes one transaction.
//!
//! # When something is away
//!
//! A store or a broker that cannot be reached delays work, at the start as at any later time, and costs no attempt. Memory
//! is bounded: what the relay has no room for waits in the store, and what handlers have no time for waits at the broker.
//! [`Cap::health`] tells what is down, since when, and what waits.
//!
//! # Adapters
//!
//! A store implements [`storage::Storage`] and [`monitor::Monitor`], a broker [`transport::Transport`]; `cap-conformance` is
//! the suite that both must pass.
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
    FromDelivery, HandlerError, HandlerErrorKind, HandlerFn, HandlerPointers, IntoOutcome, Layer, Next,
    Outcome, Publisher, RawBody, Reply, Response, State, States, Submission, Subscribe, Subscription,
    SubscriptionOptions, Topic, layer_fn,
};
#[cfg(feature = "tower")]
pub use handlers::{NextService, TowerLayer};
pub use message::{Headers, Message, MessageId};
pub use operate::monitor::BusMonitor;
pub use operate::parked::Parked;
pub use publish::{Publish, PublishAll};
pub use runtime::callback_policy::CallbackNotAllowed;
pub use runtime::circuit::{CircuitBreaker, CircuitHealth, CircuitState};
pub use runtime::health::{Component, FullDestination, GroupHealth, Health, Phase};
pub use runtime::options::{CapOptions, Unrouted};

/// The former name of [`AfterCommit`].
#[deprecated(note = "renamed to AfterCommit")]
pub type Handover = AfterCommit;

/// Links crates of handlers into this program.
///
/// Handlers register themselves when their crate is linked, but a crate that is nowhere named in code is not: the
/// compiler leaves it out, without a word. This names it. A program whose handlers are all missing does not start,
/// and [`CapBuilder::expect_topics`] finds a single missing crate.
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

/// What the macros write refers to this; exempt from semantic versioning.
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
