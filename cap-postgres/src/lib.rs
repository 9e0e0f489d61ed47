//! PostgreSQL storage for cap.
//!
//! [`Postgres`] keeps the outbox and the inbox in a schema of its own, beside the application's tables and in the same
//! database, so that a message and the data that belongs to it are stored in one transaction.
//!
//! - [`begin`] opens a transaction to publish in; plain `sqlx` transactions and connections serve too.
//! - [`PgTx`] gives a handler a transaction in which its effects, the completion of its message and its reply happen together.
//! - The views `published` and `received` show the messages with the columns and values of .NET CAP, for existing
//!   queries. The tables are different: .NET processes cannot share them.
//!
//! ```no_run
//! use cap_core::prelude::*;
//! use cap_postgres::{PgTx, Postgres};
//! use sqlx::PgPool;
//!
//! #[cap_subscribe("order.placed", group = "stock")]
//! async fn deduct(order: i64, mut tx: PgTx) -> Result<Reply<bool>, sqlx::Error> {
//!     sqlx::query("UPDATE stock SET left_over = left_over - 1").execute(&mut *tx).await?;
//!     Ok(Reply(true))
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = PgPool::connect("postgres://shop@localhost/shop").await?;
//! let cap = Cap::builder()
//!     .storage(Postgres::new(pool.clone()))
//!     .transport(MemoryTransport::new())
//!     .start()
//!     .await?;
//!
//! let mut tx = cap_postgres::begin(&cap, &pool).await?;
//! sqlx::query("INSERT INTO orders (id) VALUES (7)").execute(&mut *tx).await?;
//! cap.publish("order.placed", &7).within(&mut tx).await?;
//! tx.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The tables
//!
//! A message is written once, to `outbox` or `inbox`. What moves is a narrow row beside it, in `outbox_state` or
//! `inbox_state`: its status, its owner, when it is due. A message that has succeeded at its first attempt has none, so
//! these tables hold only what is under way or has failed, or is kept for a reason. `attempts` has a row for each attempt that failed.
//! All times are the database's. The schema is created at the first start, or beforehand from
//! [`Postgres::schema_sql`].

mod claim;
mod connections;
mod database;
mod maintenance;
mod monitor;
mod schema;
mod storage;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod test_pool;
mod transactions;
mod write;

pub use connections::credentials::Credentials;
pub use storage::options::PostgresOptions;
pub use storage::postgres::Postgres;
pub use transactions::cap_transaction::{CapTransaction, begin};
pub use transactions::pg_tx::PgTx;
