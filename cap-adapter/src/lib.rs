//! The contract between cap's engine and its adapters: what authors of a storage, a transport or a handler argument
//! implement.
//!
//! | module | what is there |
//! |---|---|
//! | [`message`] | messages, their headers and ids, topics and patterns |
//! | [`error`](mod@error) | the errors of storages, transports and publishing |
//! | [`storage`], [`monitor`] | the two traits of a storage, and their data |
//! | [`transport`] | the two traits of a transport, and their data |
//! | [`handler`] | what handler arguments are extracted from, and transactions of handlers |
//! | [`within`] | publishing inside the caller's own transaction |
//!
//! Services do not depend on this crate directly: `cap-core` re-exports everything under the same names. The test
//! suite that every adapter must pass is `cap-conformance`.

#[doc(hidden)]
pub mod engine;
pub mod error;
#[doc(hidden)]
pub mod faults;
pub mod handler;
pub mod message;
pub mod monitor;
mod panics;
mod retry_policy;
mod shared_key;
pub mod storage;
pub mod transport;
mod unverified_transport;
pub mod within;

pub use error::{BoxError, PublishError, StartError};
pub use handler::{
    Attempt, BoxFuture, Cancelled, CheckContext, Classify, Completion, Delivery, Enlisted, FromDelivery,
    HandlerError, HandlerErrorKind, Payload, RawBody, State, States, Topic,
};
pub use message::{Headers, Message, MessageId, message_id};
pub use retry_policy::{NextAttempt, RetryPolicy};
pub use unverified_transport::UnverifiedTransport;
pub use within::{AfterCommit, Bus, CommitDispatch, Within};
