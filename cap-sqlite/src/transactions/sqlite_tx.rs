//! A transaction as the argument of a handler.

use std::fmt;
use std::ops::{Deref, DerefMut};

use cap_adapter::error::StorageError;
use cap_adapter::storage::{NewOutgoing, Owner, Stored};
use cap_adapter::{CheckContext, Delivery, FromDelivery, HandlerError, Within};
use cap_sql::handler_transaction::{Lent, cannot_begin, enlist, within_time};
use sqlx::{SqliteConnection, Transaction};

use crate::storage::sqlite::Sqlite;
use crate::transactions::open_transaction::Open;
use crate::transactions::plain_transaction::store_in;

/// A transaction in which the handler's effects, the completion of its message, its reply and all that it publishes happen
/// together, or not at all: exactly once, whatever crashes in between.
///
/// It is of the pool that [`Sqlite::new`] was given. The bus commits it when the handler has succeeded, and rolls it back
/// otherwise: the handler neither can nor needs to do either. A handler that moves it out, such as into a task that lives on,
/// fails.
///
/// SQLite lets one write at a time, and this transaction takes the write lock before the handler begins: handlers that
/// take it run one after the other, whatever their group's concurrency, and while one runs the bus stores and completes
/// nothing. Keep them short, and do slow things (calls to other services) in a handler without it. One that cannot begin
/// within ten seconds, or half its timeout, since other transactions have been writing for so long, is tried again a second later,
/// and no attempt is counted.
///
/// It dereferences to `SqliteConnection`: functions of yours fit if they take `&mut SqliteConnection` or
/// `impl SqliteExecutor<'_>`, called with `&mut *tx`. Those that take `&mut sqlx::Transaction<'_, Sqlite>` are called with
/// [`as_sqlx`](Self::as_sqlx).
///
/// ```
/// use cap_core::prelude::*;
/// use cap_sqlite::SqliteTx;
///
/// #[cap_subscribe("order.paid", group = "ledger")]
/// async fn book(amount: i64, mut tx: SqliteTx) -> Result<(), sqlx::Error> {
///     sqlx::query("INSERT INTO ledger (amount) VALUES (?)").bind(amount).execute(&mut *tx).await?;
///     Ok(())
/// }
/// ```
pub struct SqliteTx {
    lent: Lent<Open>,
}

impl SqliteTx {
    /// The transaction as sqlx has it, for functions that take one. It stays the bus's to commit.
    pub fn as_sqlx(&mut self) -> &mut Transaction<'static, sqlx::Sqlite> {
        self.lent.transaction_mut()
    }

    async fn begin(delivery: &Delivery, storage: &Sqlite) -> Result<Self, HandlerError> {
        // First of all, as a second transaction would wait for the first.
        let slot = enlist::<Open>(delivery, storage.clone())?;
        let beginning = Open::begin(storage.pool());
        let begun = match delivery.timeout() {
            // Not for all of the handler's time, as that would look as if it had begun and failed.
            Some(timeout) => within_time(timeout / 2, beginning).await,
            None => beginning.await,
        };
        let open = begun.map_err(|fault| {
            cannot_begin(
                fault.into_error("beginning the handler's transaction", &storage.shared().connections.target),
            )
        })?;
        Ok(Self { lent: slot.lend(open) })
    }
}

impl FromDelivery for SqliteTx {
    fn check(context: &CheckContext<'_>) -> Result<(), String> {
        context.require_storage::<Sqlite>("SqliteTx", "SQLite")
    }

    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        match delivery.storage().downcast_ref::<Sqlite>() {
            Some(storage) => Self::begin(delivery, storage).await,
            None => Err(HandlerError::permanent("SqliteTx needs SQLite as storage")),
        }
    }
}

impl Deref for SqliteTx {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.lent.connection()
    }
}

impl DerefMut for SqliteTx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.lent.connection_mut()
    }
}

impl fmt::Debug for SqliteTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteTx").finish_non_exhaustive()
    }
}

/// For a handler that publishes in its own transaction; `Publisher` is the shorter way.
impl Within<Sqlite> for SqliteTx {
    async fn store(
        &mut self,
        storage: &Sqlite,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        store_in(&mut self.lent, storage, owner, messages).await
    }
}
