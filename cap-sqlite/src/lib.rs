//! SQLite storage for cap: durable, embedded, without a server.
//!
//! [`Sqlite`] keeps the outbox and the inbox in a few tables beside the application's own and in the same file, so that
//! a message and the data that it tells of are stored in one transaction. It serves one node, or several processes on
//! one machine that share the file.
//!
//! - [`begin`] opens a transaction to publish in; plain `sqlx` transactions and connections serve too.
//! - [`SqliteTx`] gives a handler a transaction in which its effects, the completion of its message and its reply
//!   happen together.
//! - The views `cap_published` and `cap_received` show the messages with the columns and values of .NET CAP.
//!
//! ```no_run
//! use cap_core::prelude::*;
//! use cap_sqlite::{Sqlite, SqliteTx};
//!
//! #[cap_subscribe("order.placed", group = "stock")]
//! async fn deduct(order: i64, mut tx: SqliteTx) -> Result<Reply<bool>, sqlx::Error> {
//!     sqlx::query("UPDATE stock SET left_over = left_over - 1").execute(&mut *tx).await?;
//!     Ok(Reply(true))
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let storage = Sqlite::open("shop.db");
//! let pool = storage.pool().clone();
//! let cap = Cap::builder().storage(storage).transport(MemoryTransport::new()).start().await?;
//!
//! let mut tx = cap_sqlite::begin(&cap, &pool).await?;
//! sqlx::query("INSERT INTO orders (id) VALUES (7)").execute(&mut *tx).await?;
//! cap.publish("order.placed", &7).within(&mut tx).await?;
//! tx.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # One writer at a time
//!
//! SQLite lets one transaction write at a time, whatever table it writes to. The bus's own writes take turns with
//! [`begin`] and [`SqliteTx`], in the order in which they came; other transactions, and other processes, are waited for
//! up to five seconds, and then again. While a transaction is open that has written, no message is stored, completed or
//! claimed: keep it short, well below the lease (30 s by default), and publish nothing outside it meanwhile but
//! `within` it.
//!
//! # Durability
//!
//! The bus writes in WAL mode with `synchronous = FULL`: what it reports as stored is on the disk. A transaction of the
//! application's is as durable as the application's pool makes it; SQLite's own default is `FULL` too.
//!
//! # The tables
//!
//! A message is written once, to `cap_outbox` or `cap_inbox`. What moves is a narrow row beside it, in
//! `cap_outbox_state` or `cap_inbox_state`: its status, its owner, when it is due. A message that has succeeded at its
//! first attempt has none. `cap_attempts` has a row for each attempt that failed. Times are microseconds since 1970, by
//! the machine's clock. The tables are created at the first start, or beforehand from [`Sqlite::schema_sql`].

mod claim;
mod connections;
mod database;
mod maintenance;
mod monitor;
mod schema;
mod storage;
mod transactions;
mod write;

pub use storage::options::SqliteOptions;
pub use storage::sqlite::Sqlite;
pub use transactions::cap_transaction::{CapTransaction, begin};
pub use transactions::sqlite_tx::SqliteTx;
