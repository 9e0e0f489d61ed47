//! Begins and ends transactions on connections of the application, so that no broken connection goes back to its pool.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, PgPool, Transaction};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::Instrument as _;

/// How long may be spent on a connection that goes back.
const LIMIT: Duration = Duration::from_secs(5);

/// Ends the session if a new transaction in it could not write. It ends it at the server, which is right behind a pooler,
/// too: there it is the pooler's connection that must not be used again. The driver's pool drops the rest.
const END_IF_READ_ONLY: &str = "SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid()) \
     WHERE pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on'";

/// As above, after the transaction that the driver knows of has been rolled back, which may have failed before. The driver
/// is left with a transaction, as it expects one.
const ROLL_BACK: &str = "ROLLBACK; \
     SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid()) \
     WHERE pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on'; \
     BEGIN";

/// Begins a transaction, or none, also when its future is dropped: a `BEGIN` whose answer is not read would leave
/// its connection in a transaction that the driver knows nothing of, and all that the application then does on it would
/// be lost. Therefore a future that is dropped goes on in a task of its own; a transaction that is no longer wanted is
/// dropped as it is begun, and so rolled back. The task lasts as long as the pool takes for a connection, and one round
/// trip.
pub(crate) async fn begin_whole(
    pool: &PgPool,
    statement: &'static str,
) -> Result<Transaction<'static, sqlx::Postgres>, sqlx::Error> {
    let pool = pool.clone();
    Whole::new(async move { pool.begin_with(statement).await }).await
}

/// Leaves a connection to its pool whose transaction the server has committed and begun anew: the driver ends the new one,
/// as it believes that it is still in the first.
pub(crate) fn leave_committed(transaction: Transaction<'static, sqlx::Postgres>) {
    // A commit and no rollback, of which monitoring would count one for each message. If it fails, the pool finds the
    // connection broken; nothing was done in that transaction.
    let committed = async move { timeout(LIMIT, transaction.commit()).await };
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(committed.in_current_span())),
        Err(_) => drop(committed),
    }
}

/// A future that runs to its end: one that is dropped before goes on in a task.
struct Whole<T: Send + 'static> {
    /// There until it is done.
    work: Option<BoxFuture<'static, T>>,
    runtime: Handle,
}

impl<T: Send + 'static> Whole<T> {
    /// To be called on a runtime.
    fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work.in_current_span())), runtime: Handle::current() }
    }
}

impl<T: Send + 'static> Future for Whole<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // It is not polled after its end.
        let Some(work) = self.work.as_mut() else { return Poll::Pending };
        let done = ready!(work.as_mut().poll(context));
        self.work = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for Whole<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

/// Rolls back, and keeps a connection to a server that takes no writes from its pool. Such a connection is seldom alone:
/// those that rest in the pool are looked at, too, in a task of their own. `true` if there was one.
///
/// When this is dropped, the driver rolls back.
pub(crate) async fn roll_back(
    mut transaction: Transaction<'static, sqlx::Postgres>,
    pool: &PgPool,
) -> Result<bool, sqlx::Error> {
    let rolled_back = sqlx::raw_sql(ROLL_BACK).execute(&mut *transaction).await;
    drop(transaction);
    match rolled_back {
        Ok(_) => Ok(false),
        Err(error) if is_ended(&error) => {
            tracing::warn!("database server is read-only; closing the connections to it");
            tokio::spawn(close_read_only(pool.clone()).in_current_span());
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// As [`roll_back`], in the background, for a transaction that was dropped.
pub(crate) fn roll_back_later(transaction: Transaction<'static, sqlx::Postgres>, pool: PgPool) {
    // Without a runtime there is nothing to be asked, and the driver does what it always does.
    if let Ok(runtime) = Handle::try_current() {
        let rolled_back = async move { timeout(LIMIT, roll_back(transaction, &pool)).await };
        runtime.spawn(rolled_back.in_current_span());
    }
}

/// Whether the server has ended the session as it was asked to.
fn is_ended(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("57P01"))
}

/// Closes the connections of this pool that rest and lead to a server that takes no writes.
async fn close_read_only(pool: PgPool) {
    // They are kept until all were looked at, as each would come again otherwise.
    let mut fine = Vec::new();
    for _ in 0..pool.size() {
        let Some(mut connection) = pool.try_acquire() else { break };
        let asked =
            async { sqlx::raw_sql(END_IF_READ_ONLY).execute(&mut *connection as &mut PgConnection).await };
        match timeout(LIMIT, asked).await {
            Ok(Ok(_)) => fine.push(connection),
            // Out of the pool, which would wait for the server's farewell, and closed.
            _ => drop(connection.detach()),
        }
    }
}
