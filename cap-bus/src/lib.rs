//! An event bus for messages that must not be lost, after the model of .NET's CAP.
//!
//! A service publishes inside its own database transaction (the outbox). When the transaction commits, the message reaches
//! every subscribed group, whatever process, broker or database fails in between. A received message is stored (the inbox)
//! before it is acknowledged; a failed handler is retried, and a message that cannot be handled waits for an operator.
//!
//! This crate is the one dependency of a service: the engine, the macros and, by feature, the adapters.
//!
//! | feature | what it adds |
//! |---|---|
//! | `postgres` | PostgreSQL as the storage: `cap_bus::postgres`, with `Postgres`, `PgTx` and `begin` |
//! | `sqlite` | SQLite as the storage: `cap_bus::sqlite`, with `Sqlite`, `SqliteTx` and `begin` |
//! | `rabbitmq` | RabbitMQ as the transport: `cap_bus::rabbitmq`, with `RabbitMq` |
//! | `dashboard` | pages for operators as an axum router: `cap_bus::dashboard`, with `Dashboard` |
//! | `config` | all settings from one file and the environment: `cap_bus::config`, with `Config` |
//! | `tower` | `TowerLayer`, which wraps handlers in tower's layers |
//!
//! Without a feature there is the [embedded pair](memory): a storage and a transport inside the process.
//!
//! # A whole program
//!
//! ```standalone_crate
//! use cap_bus::prelude::*;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Placed { order: u64 }
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Reserved { order: u64, shelf: String }
//!
//! // The stock service. Its return value is published to the callback topic that the sender named.
//! #[cap_subscribe("order.placed", group = "stock")]
//! async fn reserve(placed: Placed) -> Reply<Reserved> {
//!     Reply(Reserved { order: placed.order, shelf: "B7".to_owned() })
//! }
//!
//! // The order service, which named it.
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
//! [`Cap::publish`] stores a message in the outbox, from where it is sent to the broker. It returns when the message is
//! stored and does not wait for the broker. [`Publish::within`] stores the message on the caller's own database
//! transaction: it is sent if and only if the transaction commits. [`Cap::publish_all`] stores many messages in one round
//! trip, [`Publish::delay`] one that is sent later, and a [`Publisher`] one that is sent if the handler succeeds.
//!
//! # Handlers
//!
//! A handler is an async function with [`cap_subscribe`](macro@cap_subscribe), a method in a block with
//! [`cap_subscriber`](macro@cap_subscriber), or a function that [`CapBuilder::subscribe`] is given. Its arguments say where
//! they come from, in any order: at most one payload, of any type that implements `Deserialize` (or that type in a [`Payload`]), and any of
//! [`CapHeaders`], [`State`], [`RawBody`], [`MessageId`], [`Topic`], [`Attempt`], [`Cancelled`], [`Publisher`], [`Cap`] and
//! [`Delivery`]. It returns `()`, a [`Reply`], or a `Result` of either.
//!
//! Handlers of one *group* share the messages of the group, in whichever process they run; every group receives every
//! message. A topic pattern may have the wildcards `*` (one word) and `#` (any number of words). Within a group the most
//! specific pattern decides which handler receives a message.
//!
//! # Failures
//!
//! An error, a panic and a timeout each count as a failed attempt. The [`RetryPolicy`] decides when the next attempt is
//! made: by default 3 immediate attempts, the next one after 4 minutes, then one a minute, 50 in all. When the bus gives
//! up, it calls [`CapBuilder::on_failed`] and parks the message until an operator repairs it and runs it again
//! ([`Cap::messages`]). A storage or a broker that cannot be reached delays work and never counts as an attempt.
//!
//! # Exactly-once effects
//!
//! Without more, a handler runs at least once for each message: again after a failed attempt, or after its process has
//! died while it ran. With an adapter's transaction as an argument (`PgTx`, `SqliteTx`) the handler's writes, the record
//! that the message is handled, and everything that it publishes commit together or not at all.

pub use cap_core::*;
#[cfg(feature = "config")]
pub mod config;

#[cfg(feature = "dashboard")]
pub use cap_dashboard as dashboard;
#[doc(inline)]
pub use cap_macros::{cap_subscribe_bus as cap_subscribe, cap_subscriber_bus as cap_subscriber};
#[cfg(feature = "postgres")]
pub use cap_postgres as postgres;
#[cfg(feature = "rabbitmq")]
pub use cap_rabbitmq as rabbitmq;
#[cfg(feature = "sqlite")]
pub use cap_sqlite as sqlite;

/// What the macros refer to; exempt from semantic versioning.
#[doc(hidden)]
pub use cap_core::__private;

/// Everything that a service with handlers needs: `use cap_bus::prelude::*;`.
pub mod prelude {
    pub use cap_core::prelude::*;
    #[cfg(feature = "postgres")]
    pub use cap_postgres::{PgTx, Postgres};
    #[cfg(feature = "rabbitmq")]
    pub use cap_rabbitmq::RabbitMq;
    #[cfg(feature = "sqlite")]
    pub use cap_sqlite::{Sqlite, SqliteTx};

    pub use crate::{cap_subscribe, cap_subscriber};
}
