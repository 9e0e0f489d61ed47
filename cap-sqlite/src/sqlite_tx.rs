//! A transaction as the argument of a handler.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cap_adapter::error::StorageError;
use cap_adapter::faults::point;
use cap_adapter::storage::{NewOutgoing, Owner, Side, Stored};
use cap_adapter::{
    BoxFuture, CheckContext, Completion, Delivery, Enlisted, FromDelivery, HandlerError, Within,
};
use sqlx::SqliteConnection;
use tokio::time::timeout;

use crate::complete;
use crate::error::Fault;
use crate::insert::{self, Writing};
use crate::session::{ANSWER_TIMEOUT, now};
use crate::storage::Sqlite;
use crate::transaction::{Open, store_in};
use crate::work::Work;

/// A transaction in which the handler's effects, the mark on its message, its answer and all that it publishes happen
/// together, or not at all: exactly once, whatever dies in between.
///
/// It is of the pool that [`Sqlite::new`] was given. The bus commits it when the handler has succeeded, and rolls it back
/// otherwise: the handler neither can nor need do either. A handler that moves it out, say into a task that lives on,
/// fails.
///
/// SQLite lets one write at a time, and this transaction takes the write lock before the handler begins: handlers that
/// take it run one after the other, whatever their group's concurrency, and while one runs the bus stores and marks
/// nothing. Keep them short, and do slow things (calls to other services) in a handler without it. One that cannot begin
/// within ten seconds, or half its time-out, since others have been writing for so long, is tried again a second later,
/// and no attempt is counted.
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
    /// There as long as this value is.
    open: Option<Open>,
    slot: Arc<Slot>,
}

/// Where the handler's value puts the transaction when it is dropped. What comes back after the bus has given up on it is
/// dropped with the slot, and so rolled back.
type Slot = Mutex<Option<Open>>;

impl SqliteTx {
    async fn begin(delivery: &Delivery, storage: &Sqlite) -> Result<Self, HandlerError> {
        let slot = Arc::new(Slot::default());
        let enlistment = Enlistment { storage: storage.clone(), slot: Arc::clone(&slot) };
        // First of all, as a second transaction would wait for the first.
        if delivery.enlist(Box::new(enlistment)).is_err() {
            return Err(HandlerError::permanent("a handler can take one transaction; this one takes two"));
        }
        let beginning = Open::begin(storage.pool());
        let begun = match delivery.timeout() {
            // Not for all of the handler's time, as that would look as if it had begun and failed.
            Some(timeout) => within_time(timeout / 2, beginning).await,
            None => beginning.await,
        };
        let open = begun.map_err(|fault| {
            let error = fault.into_error("beginning the handler's transaction", storage.target());
            if error.is_unavailable() {
                // The handler has not begun: nothing is counted against the message.
                HandlerError::cancelled().retry_after(Duration::from_secs(1)).because(error)
            } else {
                HandlerError::failed(error)
            }
        })?;
        Ok(Self { open: Some(open), slot })
    }
}

impl FromDelivery for SqliteTx {
    fn check(context: &CheckContext<'_>) -> Result<(), String> {
        context.require_storage::<Sqlite>("SqliteTx", "SQLite")
    }

    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        match delivery.storage().downcast_ref::<Sqlite>() {
            Some(storage) => Self::begin(delivery, &storage.clone()).await,
            None => Err(HandlerError::permanent("SqliteTx needs SQLite as storage")),
        }
    }
}

// The transaction leaves the value only when that is dropped.
const HELD: &str = "a SqliteTx holds its transaction until it is dropped";

impl SqliteTx {
    #[allow(clippy::expect_used, reason = "see HELD")]
    fn open(&mut self) -> &mut Open {
        self.open.as_mut().expect(HELD)
    }
}

impl Deref for SqliteTx {
    type Target = SqliteConnection;

    #[allow(clippy::expect_used, reason = "see HELD")]
    fn deref(&self) -> &SqliteConnection {
        self.open.as_ref().expect(HELD).connection()
    }
}

impl DerefMut for SqliteTx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.open().connection_mut()
    }
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        *lock(&self.slot) = self.open.take();
    }
}

impl fmt::Debug for SqliteTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteTx").finish_non_exhaustive()
    }
}

/// What the bus itself publishes in it leaves with it; `Publisher` is the shorter way.
impl Within<Sqlite> for SqliteTx {
    async fn store(
        &mut self,
        storage: &Sqlite,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        store_in(self.open(), storage, owner, messages).await
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Open>> {
    // Nothing panics while it is locked.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bus's end of the transaction.
struct Enlistment {
    storage: Sqlite,
    slot: Arc<Slot>,
}

impl Enlistment {
    async fn complete(&self, completion: Completion) -> Result<bool, Fault> {
        let Some(mut open) = lock(&self.slot).take() else {
            let reason = "the handler has returned but still holds its SqliteTx, in a task perhaps; it is rolled \
                          back, and nothing can be written before it is dropped";
            return Err(Fault::Refused(reason.to_owned()));
        };
        match self.write_completion(&mut open, &completion).await {
            Ok(Some(work)) => {
                point("handler-commit.before").await;
                open.commit().await?;
                point("handler-commit.after").await;
                work.wake(self.storage.file());
                Ok(true)
            }
            Ok(None) => {
                open.rollback().await?;
                Ok(false)
            }
            Err(fault) => {
                // The first error says more than one of the rollback.
                let _ = open.rollback().await;
                Err(fault)
            }
        }
    }

    /// Writes the outcome, and says what work it leaves. `None` when the lease is lost.
    async fn write_completion(
        &self,
        open: &mut Open,
        completion: &Completion,
    ) -> Result<Option<Work>, Fault> {
        let Completion { owner, row_completion } = completion;
        let statements = self.storage.statements();
        open.check().await?;
        let connection = open.connection_mut();
        let writing = Writing { statements, owner, now: now() };
        let mut work = Work::default();
        let row_completions = std::slice::from_ref(row_completion);
        if complete::complete(connection, writing, Side::Inbox, row_completions, &mut work).await? != [true] {
            return Ok(None);
        }
        let publishes: Vec<&NewOutgoing> = row_completion.publishes.iter().collect();
        let stored = insert::outgoing(connection, writing, &publishes, &mut work).await?;
        row_completion.warn_of_duplicates(stored);
        work.announce(connection, statements).await?;
        Ok(Some(work))
    }
}

/// How long the record of a failure waits for the rollback. A statement in the middle of which a handler was stopped goes
/// on to its end; the driver rolls back then, before the connection does anything else.
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
            let Some(open) = lock(&self.slot).take() else { return };
            if let Err(fault) = within_time(ROLLBACK_TIMEOUT, open.rollback()).await {
                let error = fault.into_error("rolling the handler's transaction back", self.storage.target());
                tracing::debug!(%error, "a handler's transaction is not rolled back yet");
            }
        })
    }
}
