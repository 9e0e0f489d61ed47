//! A transaction as the argument of a handler.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cap_core::error::StorageError;
use cap_core::faults::point;
use cap_core::storage::{NewOutgoing, Owner, Side, Stored};
use cap_core::{BoxFuture, CheckContext, Completion, Delivery, Enlisted, FromDelivery, HandlerError, Within};
use sqlx::{PgConnection, Transaction};
use tokio::time::timeout;

use crate::error::Fault;
use crate::session::ANSWER_TIMEOUT;
use crate::storage::Postgres;
use crate::transaction::{begin_whole, store_unheld};
use crate::{insert, settle};

/// A transaction in which the handler's effects, the mark on its message, its answer and all that it publishes happen
/// together, or not at all: exactly once, whatever dies in between.
///
/// It is of the pool that [`Postgres::new`] was given. The bus commits it when the handler has succeeded, and rolls it
/// back otherwise: the handler neither can nor need do either. A handler that moves it out, say into a task that lives
/// on, fails.
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
    /// There as long as this value is.
    transaction: Option<Transaction<'static, sqlx::Postgres>>,
    slot: Arc<Slot>,
}

/// Where the handler's value puts the transaction when it is dropped. What comes back after the bus has given up on it is
/// dropped with the slot, and so rolled back.
type Slot = Mutex<Option<Transaction<'static, sqlx::Postgres>>>;

impl PgTx {
    async fn begin(delivery: &Delivery, storage: &Postgres) -> Result<Self, HandlerError> {
        let begun = begin_whole(storage.pool(), "BEGIN").await;
        let transaction = begun.map_err(|error| {
            let error =
                Fault::from(error).into_error("beginning the handler's transaction", storage.target());
            if error.is_unavailable() {
                // The handler has not begun: nothing is counted against the message.
                HandlerError::cancelled().retry_after(Duration::from_secs(1)).because(error)
            } else {
                HandlerError::failed(error)
            }
        })?;
        let slot = Arc::new(Slot::default());
        let enlistment = Enlistment { storage: storage.clone(), slot: Arc::clone(&slot) };
        let own = Self { transaction: Some(transaction), slot };
        match delivery.enlist(Box::new(enlistment)) {
            Ok(()) => Ok(own),
            Err(_) => Err(HandlerError::permanent("a handler can take one transaction; this one takes two")),
        }
    }
}

impl FromDelivery for PgTx {
    fn check(context: &CheckContext<'_>) -> Result<(), String> {
        context.require_storage::<Postgres>("PgTx", "PostgreSQL")
    }

    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        match delivery.storage().downcast_ref::<Postgres>() {
            Some(storage) => Self::begin(delivery, &storage.clone()).await,
            None => Err(HandlerError::permanent("PgTx needs PostgreSQL as storage")),
        }
    }
}

// The transaction leaves the value only when that is dropped.
const HELD: &str = "a PgTx holds its transaction until it is dropped";

impl Deref for PgTx {
    type Target = PgConnection;

    #[allow(clippy::expect_used, reason = "see HELD")]
    fn deref(&self) -> &PgConnection {
        self.transaction.as_ref().expect(HELD)
    }
}

impl DerefMut for PgTx {
    #[allow(clippy::expect_used, reason = "see HELD")]
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.transaction.as_mut().expect(HELD)
    }
}

impl Drop for PgTx {
    fn drop(&mut self) {
        *lock(&self.slot) = self.transaction.take();
    }
}

impl fmt::Debug for PgTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgTx").finish_non_exhaustive()
    }
}

/// What the bus itself publishes in it leaves with it; [`Publisher`](cap_core::Publisher) is the shorter way.
impl Within<Postgres> for PgTx {
    async fn store(
        &mut self,
        storage: &Postgres,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        store_unheld(self, storage, owner, messages).await
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Transaction<'static, sqlx::Postgres>>> {
    // Nothing panics while it is locked.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bus's end of the transaction.
struct Enlistment {
    storage: Postgres,
    slot: Arc<Slot>,
}

impl Enlistment {
    async fn complete(&self, completion: Completion) -> Result<bool, Fault> {
        let Some(mut transaction) = lock(&self.slot).take() else {
            let reason =
                "the handler has returned but still holds its PgTx, in a task perhaps; it is rolled back";
            return Err(Fault::Refused(reason.to_owned()));
        };
        let Completion { owner, settlement } = completion;
        let writing = self.storage.writing(&owner);
        // The application's connections have plans of their own; from here on the transaction is ours alone.
        sqlx::raw_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
            .execute(&mut *transaction)
            .await?;
        // The row's lock keeps others from claiming it until the commit.
        if !settle::settle_one(&mut transaction, writing, Side::Inbox, &settlement).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        if !settlement.publishes.is_empty() {
            let publishes: Vec<&NewOutgoing> = settlement.publishes.iter().collect();
            insert::outgoing(&mut transaction, writing, &publishes).await?;
        }
        point("handler-commit.before").await;
        transaction.commit().await?;
        point("handler-commit.after").await;
        Ok(true)
    }
}

/// How long the record of a failure waits for the rollback. A handler that was stopped in the middle of a query leaves
/// a connection that cannot answer before that query is over; the pool takes it back then, and it rolls back first.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

async fn within_time<T>(limit: Duration, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(Fault::no_answer(limit)))
}

impl Enlisted for Enlistment {
    fn complete(self: Box<Self>, completion: Completion) -> BoxFuture<'static, Result<bool, StorageError>> {
        Box::pin(async move {
            let completed = within_time(ANSWER_TIMEOUT, Self::complete(&self, completion)).await;
            completed.map_err(|fault| {
                fault.into_error("committing the handler's transaction", self.storage.target())
            })
        })
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Some(transaction) = lock(&self.slot).take() else { return };
            let rollback = within_time(ROLLBACK_TIMEOUT, async { Ok(transaction.rollback().await?) });
            if let Err(fault) = rollback.await {
                let error = fault.into_error("rolling the handler's transaction back", self.storage.target());
                tracing::debug!(%error, "a handler's transaction is not rolled back yet");
            }
        })
    }
}
