//! A transaction as the argument of a handler.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cap_adapter::error::StorageError;
use cap_adapter::faults::point;
use cap_adapter::storage::{Lease, NewOutgoing, Side};
use cap_adapter::{BoxFuture, CheckContext, Completion, Delivery, Enlisted, FromDelivery, HandlerError};
use sqlx::{PgConnection, Transaction};
use tokio::time::timeout;

use crate::error::Fault;
use crate::insert::Asked;
use crate::lent::{begin_whole, leave_committed, roll_back, roll_back_later};
use crate::session::ANSWER_TIMEOUT;
use crate::storage::Postgres;
use crate::{complete, insert};

/// A transaction in which the handler's effects, the mark on its message, its answer and all that it publishes happen
/// together, or not at all: exactly once, whatever dies in between.
///
/// It is of the pool that [`Postgres::new`] was given. The bus commits it when the handler has succeeded, and rolls it
/// back otherwise: the handler neither can nor need do either. A handler that moves it out, say into a task that lives
/// on, fails. One whose transaction cannot begin, within five seconds or half the handler's time-out if it has one, is
/// tried again a second later, and no attempt is counted.
///
/// It begins at `READ COMMITTED`, whatever the database's default is. A handler may begin with `SET TRANSACTION ISOLATION
/// LEVEL ..`, but the bus renews the message's lease three times in its length, which clashes with any higher level that
/// is older: a serialization failure is a failed attempt. What a handler sets with `SET LOCAL ROLE` ends with the handler.
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

/// With the isolation that the bus needs, whatever the database has as its default: its heartbeat writes the row that the
/// outcome writes later. And with keep-alives by which the server notices within a minute that our host is gone, and
/// rolls back.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SET LOCAL tcp_keepalives_idle = 30; SET LOCAL tcp_keepalives_interval = 10; SET LOCAL tcp_keepalives_count = 3";

/// Makes the transaction ours alone, as it comes back from the handler.
///
/// - A role that the handler has set for itself may have no rights on our tables; that of the connection does.
/// - The application's connections have plans of their own.
/// - From here on the message's row is locked: a node that stands still keeps it for a minute at most.
const TAKE_OVER: &str = "SET LOCAL role TO DEFAULT; \
     SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
     SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', '60s', true) \
     FROM (SELECT pg_catalog.current_setting('idle_in_transaction_session_timeout')::interval AS length) AS own \
     WHERE own.length OPERATOR(pg_catalog.<) interval '1 ms' OR own.length OPERATOR(pg_catalog.>) interval '60 s'";

/// How long to wait for the transaction of a handler that may take no longer than this: not for all of its time, as that
/// would look as if it had begun and failed.
fn begin_limit(timeout: Option<Duration>) -> Duration {
    timeout.map_or(ANSWER_TIMEOUT, |timeout| (timeout / 2).min(Duration::from_secs(5)))
}

/// Where the handler's value puts the transaction when it is dropped. What comes back after the bus has given up on it is
/// dropped with the slot, and so rolled back.
type Slot = Mutex<Option<Transaction<'static, sqlx::Postgres>>>;

impl PgTx {
    async fn begin(delivery: &Delivery, storage: &Postgres) -> Result<Self, HandlerError> {
        let beginning = async {
            storage.refresh_pool().await?;
            Ok(begin_whole(storage.pool(), BEGIN).await?)
        };
        let begun = within_time(begin_limit(delivery.timeout()), beginning).await;
        let transaction = begun.map_err(|fault| {
            let error = fault.into_error("beginning the handler's transaction", storage.application_target());
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
        match self.complete_and_commit(&mut transaction, &completion).await {
            Ok(Completed::Committed) => {
                leave_committed(transaction);
                Ok(true)
            }
            Ok(Completed::Marked) => {
                point("handler-commit.before").await;
                transaction.commit().await?;
                point("handler-commit.after").await;
                Ok(true)
            }
            Ok(Completed::LeaseLost) => {
                transaction.rollback().await?;
                Ok(false)
            }
            Err(fault) => {
                if fault.is_wrong_server() {
                    self.storage.leave_server();
                }
                // What has become of the connection is looked at in the background: the failure is recorded at once.
                roll_back_later(transaction, self.storage.pool().clone());
                Err(fault)
            }
        }
    }

    /// Stores what was published, marks the message, and commits if the mark can be sent with the commit.
    async fn complete_and_commit(
        &self,
        transaction: &mut PgConnection,
        completion: &Completion,
    ) -> Result<Completed, Fault> {
        let Completion { owner, row_completion } = completion;
        let writing = self.storage.writing_within(owner);
        let forgets = complete::is_forgotten(&row_completion.outcome) && self.storage.has_forget();
        let publishes = !row_completion.publishes.is_empty();
        if publishes || !forgets {
            let taken_over = sqlx::raw_sql(TAKE_OVER).execute(&mut *transaction).await;
            taken_over.map_err(|error| idled(&error).unwrap_or(error.into()))?;
        }
        // The row's lock keeps others from claiming it until the commit.
        if !forgets && !complete::complete_one(transaction, writing, Side::Inbox, row_completion).await? {
            return Ok(Completed::LeaseLost);
        }
        if publishes {
            let publishes: Vec<&NewOutgoing> = row_completion.publishes.iter().collect();
            let inserted = insert::outgoing_within(transaction, writing, &publishes, Asked::Nothing).await?;
            row_completion.warn_of_duplicates(inserted.stored);
        }
        if forgets {
            self.forget_and_commit(transaction, row_completion.lease).await
        } else {
            Ok(Completed::Marked)
        }
    }

    /// Marks the message and commits, in one round trip. A lost lease is an error at the server, so that the commit is not
    /// reached; nothing stands still between the mark, which locks the message's row, and the commit.
    async fn forget_and_commit(
        &self,
        transaction: &mut PgConnection,
        lease: Lease,
    ) -> Result<Completed, Fault> {
        let finish = self.storage.statements().forget_and_commit(lease);
        point("handler-commit.before").await;
        let finished = sqlx::raw_sql(finish).execute(transaction).await;
        point("handler-commit.after").await;
        let Err(error) = finished else { return Ok(Completed::Committed) };
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref() {
            Some(LEASE_LOST) => return Ok(Completed::LeaseLost),
            // Whoever has taken the right to call functions away: from now on it is done without.
            Some("42501" | "42883") => self.storage.miss_forget(),
            _ => {}
        }
        Err(idled(&error).unwrap_or(error.into()))
    }
}

/// What has become of a handler's message.
enum Completed {
    /// It is marked, and the transaction is committed; the driver does not know it yet.
    Committed,
    /// It is marked in the transaction.
    Marked,
    LeaseLost,
}

/// What the schema's `forget` says when the lease is lost.
const LEASE_LOST: &str = "CAP01";

/// The server has ended the transaction while the handler had it, by a time-out that the application has set. It counts as
/// a failed attempt, or a handler that always takes so long would be run for ever.
fn idled(error: &sqlx::Error) -> Option<Fault> {
    let error = error
        .as_database_error()
        .filter(|error| matches!(error.code().as_deref(), Some("25P03" | "25P04")))?;
    let reason = "the handler's transaction is rolled back: it took longer than the application's time-out for \
                  transactions allows";
    Some(Fault::Refused(format!("{} ({}): {reason}", error.message(), error.code().unwrap_or_default())))
}

/// A clash that only an isolation level of the handler's own can lead to. It counts as a failed attempt, or a handler that
/// always clashes with the bus's heartbeat would be run for ever.
fn too_isolated() -> Fault {
    let reason = "could not serialize access (40001): the handler has set an isolation level under which it clashes with \
                  another transaction, or with the bus, which renews the message's lease; what needs such a level has to \
                  be done within a third of the lease";
    Fault::Refused(reason.to_owned())
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
                let fault = if fault.is_serialization_failure() { too_isolated() } else { fault };
                fault.into_error("committing the handler's transaction", self.storage.application_target())
            })
        })
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Some(transaction) = lock(&self.slot).take() else { return };
            let rollback = async { Ok(roll_back(transaction, self.storage.pool()).await?) };
            match within_time(ROLLBACK_TIMEOUT, rollback).await {
                Ok(false) => {}
                Ok(true) => self.storage.leave_server(),
                Err(fault) => {
                    let target = self.storage.application_target();
                    let error = fault.into_error("rolling the handler's transaction back", target);
                    tracing::debug!(%error, "handler's transaction is not rolled back yet");
                }
            }
        })
    }
}
