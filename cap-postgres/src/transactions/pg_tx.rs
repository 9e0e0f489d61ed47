//! A transaction as the argument of a handler.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use cap_adapter::{CheckContext, Delivery, FromDelivery, HandlerError};
use cap_sql::handler_transaction::{Lent, cannot_begin, enlist, within_time};
use sqlx::{PgConnection, Transaction};

use crate::connections::session::ANSWER_TIMEOUT;
use crate::database::error::Fault;
use crate::storage::postgres::Postgres;
use crate::transactions::application_connections::begin_whole;
use crate::transactions::handler_commit::Begun;

/// A transaction in which the handler's effects, the completion of its message, its reply and all that it publishes happen
/// together, or not at all: exactly once, whatever crashes in between.
///
/// It is of the pool that [`Postgres::new`] was given. The bus commits it when the handler has succeeded, and rolls it
/// back otherwise: the handler neither can nor needs to do either. A handler that moves it out, such as into a task that lives
/// on, fails. One whose transaction cannot begin, within five seconds or half the handler's timeout if it has one, is
/// tried again a second later, and no attempt is counted.
///
/// It begins at `READ COMMITTED`, whatever the database's default is. A handler may begin with `SET TRANSACTION ISOLATION
/// LEVEL ..`, but the bus renews the message's lease three times in its length, which clashes with any higher level that
/// is older: a serialization failure is a failed attempt. What a handler sets with `SET LOCAL ROLE` ends with the handler.
///
/// It dereferences to `PgConnection`: functions of yours fit if they take `&mut PgConnection` or `impl PgExecutor<'_>`, called
/// with `&mut *tx`. Those that take `&mut sqlx::Transaction<'_, Postgres>` are called with [`as_sqlx`](Self::as_sqlx).
///
/// ```
/// use cap_core::prelude::*;
/// use cap_postgres::PgTx;
///
/// #[cap_subscribe("order.paid", group = "ledger")]
/// async fn book(amount: i64, mut tx: PgTx) -> Result<(), sqlx::Error> {
///     sqlx::query("INSERT INTO ledger (amount) VALUES ($1)").bind(amount).execute(&mut *tx).await?;
///     Ok(())
/// }
/// ```
pub struct PgTx {
    lent: Lent<Begun>,
}

/// With the isolation that the bus needs, whatever the database has as its default: the renewal of the lease writes the row
/// that the outcome writes later. And with keep-alives by which the server notices within a minute that our host is gone, and
/// rolls back.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SET LOCAL tcp_keepalives_idle = 30; SET LOCAL tcp_keepalives_interval = 10; SET LOCAL tcp_keepalives_count = 3";

/// How long to wait for the transaction of a handler that may take no longer than this: not for all of its time, as that
/// would look as if it had begun and failed.
fn begin_limit(timeout: Option<Duration>) -> Duration {
    timeout.map_or(ANSWER_TIMEOUT, |timeout| (timeout / 2).min(Duration::from_secs(5)))
}

impl PgTx {
    /// The transaction as sqlx has it, for functions that take one. It stays the bus's to commit.
    pub fn as_sqlx(&mut self) -> &mut Transaction<'static, sqlx::Postgres> {
        &mut self.lent.0
    }

    async fn begin(delivery: &Delivery, storage: &Postgres) -> Result<Self, HandlerError> {
        let beginning = async {
            storage.refresh_pool().await?;
            Ok::<_, Fault>(begin_whole(storage.pool(), BEGIN).await?)
        };
        let begun = within_time(begin_limit(delivery.timeout()), beginning).await;
        let transaction = begun.map_err(|fault| {
            let target = &storage.shared().application_target;
            cannot_begin(fault.into_error("beginning the handler's transaction", target))
        })?;
        let slot = enlist::<Begun>(delivery, storage.clone())?;
        Ok(Self { lent: slot.lend(Begun(transaction)) })
    }
}

impl FromDelivery for PgTx {
    fn check(context: &CheckContext<'_>) -> Result<(), String> {
        context.require_storage::<Postgres>("PgTx", "PostgreSQL")
    }

    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        match delivery.storage().downcast_ref::<Postgres>() {
            Some(storage) => Self::begin(delivery, storage).await,
            None => Err(HandlerError::permanent("PgTx needs PostgreSQL as storage")),
        }
    }
}

impl Deref for PgTx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.lent.0
    }
}

impl DerefMut for PgTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.lent.0
    }
}

impl fmt::Debug for PgTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgTx").finish_non_exhaustive()
    }
}
