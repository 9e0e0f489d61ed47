//! Completes a handler's message in the handler's transaction, and commits.

use cap_adapter::Completion;
use cap_adapter::error::StorageError;
use cap_adapter::faults::point;
use cap_adapter::storage::{Lease, NewOutgoing, Side};
use cap_sql::handler_transaction::{HandlerTransaction, ROLLBACK_TIMEOUT, within_time};
use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr, SqlStr, Transaction};

use crate::connections::session::ANSWER_TIMEOUT;
use crate::database::error::Fault;
use crate::storage::postgres::Postgres;
use crate::transactions::application_connections::{leave_committed, roll_back, roll_back_later};
use crate::write::completion::is_forgotten;
use crate::write::outgoing_row::Asked;

/// Sets what our statements need in a transaction that comes back from the handler.
///
/// - A role that the handler has set for itself may have no rights on our tables; that of the connection does.
/// - The application's connections have other planner settings.
/// - From here on the message's row is locked: a node that is frozen keeps it for a minute at most.
const TAKE_OVER: &str = "SET LOCAL role TO DEFAULT; \
     SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
     SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', '60s', true) \
     FROM (SELECT pg_catalog.current_setting('idle_in_transaction_session_timeout')::interval AS length) AS own \
     WHERE own.length OPERATOR(pg_catalog.<) interval '1 ms' OR own.length OPERATOR(pg_catalog.>) interval '60 s'";

/// A transaction that a handler works in.
pub(crate) struct Begun(pub(crate) Transaction<'static, sqlx::Postgres>);

impl HandlerTransaction for Begun {
    type Storage = Postgres;

    async fn complete(self, storage: &Postgres, completion: &Completion) -> Result<bool, StorageError> {
        let completed = within_time(ANSWER_TIMEOUT, self.complete_and_commit(storage, completion)).await;
        completed.map_err(|fault| {
            let fault = if fault.is_serialization_failure() { too_isolated() } else { fault };
            committing(storage, fault)
        })
    }

    async fn roll_back(self, storage: &Postgres) -> Result<(), StorageError> {
        let rollback = async { Ok::<_, Fault>(roll_back(self.0, storage.pool()).await?) };
        let rolled_back = within_time(ROLLBACK_TIMEOUT, rollback).await;
        let target = &storage.shared().application_target;
        if rolled_back.map_err(|fault| fault.into_error("rolling the handler's transaction back", target))? {
            storage.shared().server.leave();
        }
        Ok(())
    }

    fn still_in_use(storage: &Postgres) -> StorageError {
        let reason = "the handler has returned but still uses its PgTx, in a task perhaps; it is rolled back";
        committing(storage, Fault::Refused(reason.to_owned()))
    }
}

fn committing(storage: &Postgres, fault: Fault) -> StorageError {
    fault.into_error("committing the handler's transaction", &storage.shared().application_target)
}

impl Begun {
    async fn complete_and_commit(
        mut self,
        storage: &Postgres,
        completion: &Completion,
    ) -> Result<bool, Fault> {
        match self.write_completion(storage, completion).await {
            Ok(Completed::Committed) => {
                leave_committed(self.0);
                Ok(true)
            }
            Ok(Completed::InTransaction) => {
                point("handler-commit.before").await;
                self.0.commit().await?;
                point("handler-commit.after").await;
                Ok(true)
            }
            Ok(Completed::LeaseLost) => {
                self.0.rollback().await?;
                Ok(false)
            }
            Err(fault) => {
                if fault.is_wrong_server() {
                    storage.shared().server.leave();
                }
                // The connection is looked at in the background: the failure is recorded at once.
                roll_back_later(self.0, storage.pool().clone());
                Err(fault)
            }
        }
    }

    /// Completes the message, inserts what was published, and commits if that can be sent with the completion.
    async fn write_completion(
        &mut self,
        storage: &Postgres,
        completion: &Completion,
    ) -> Result<Completed, Fault> {
        let transaction: &mut PgConnection = &mut self.0;
        let Completion { owner, row_completion } = completion;
        let writing = storage.writing_within(owner);
        let forgets = is_forgotten(&row_completion.outcome) && storage.shared().has_forget();
        let statements = &storage.shared().statements.write;
        let publishes = !row_completion.publishes.is_empty();
        if publishes || !forgets {
            let taken_over = sqlx::raw_sql(TAKE_OVER).execute(&mut *transaction).await;
            taken_over.map_err(|error| idled(&error).unwrap_or(error.into()))?;
        }
        // The row's lock keeps others from claiming it until the commit.
        if !forgets
            && !statements.completion.complete_one(transaction, writing, Side::Inbox, row_completion).await?
        {
            return Ok(Completed::LeaseLost);
        }
        if publishes {
            let publishes: Vec<&NewOutgoing> = row_completion.publishes.iter().collect();
            let inserted =
                statements.outgoing.insert_within(transaction, writing, &publishes, Asked::Nothing).await?;
            row_completion.warn_of_duplicates(inserted.stored);
        }
        if forgets {
            forget_and_commit(transaction, storage, row_completion.lease).await
        } else {
            Ok(Completed::InTransaction)
        }
    }
}

/// Completes the message and commits, in one round trip. A lost lease is an error at the server, so that the commit is not
/// reached; nothing waits for us between the completion, which locks the message's row, and the commit.
async fn forget_and_commit(
    transaction: &mut PgConnection,
    storage: &Postgres,
    lease: Lease,
) -> Result<Completed, Fault> {
    let finish = forget_statement(&storage.shared().statements.forget, lease);
    point("handler-commit.before").await;
    let finished = sqlx::raw_sql(finish).execute(transaction).await;
    point("handler-commit.after").await;
    let Err(error) = finished else { return Ok(Completed::Committed) };
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match code.as_deref() {
        Some(LEASE_LOST) => return Ok(Completed::LeaseLost),
        // Whoever has taken the right to call functions away: from now on it is done without.
        Some("42501" | "42883") => storage.shared().miss_forget(),
        _ => {}
    }
    Err(idled(&error).unwrap_or(error.into()))
}

/// Completes a message, and commits. The role that the handler has set may have no rights on our tables. Then a transaction is
/// begun anew, as the driver believes that it is in one.
fn forget_statement(forget: &str, lease: Lease) -> SqlStr {
    let Lease { id, epoch } = lease;
    AssertSqlSafe(format!(
        "SET LOCAL role TO DEFAULT; SELECT {forget}({id}::bigint, {epoch}::integer); COMMIT; BEGIN"
    ))
    .into_sql_str()
}

/// How far the completion of a handler's message has come.
enum Completed {
    /// The transaction is committed; the driver does not know it yet.
    Committed,
    /// The outcome is written, and not committed yet.
    InTransaction,
    LeaseLost,
}

/// The error code of the schema's function `forget` when the lease is lost.
const LEASE_LOST: &str = "CAP01";

/// The server has ended the transaction while the handler had it, by a timeout that the application has set. It counts as
/// a failed attempt, or a handler that always takes so long would be run for ever.
fn idled(error: &sqlx::Error) -> Option<Fault> {
    let error = error
        .as_database_error()
        .filter(|error| matches!(error.code().as_deref(), Some("25P03" | "25P04")))?;
    let reason = "the handler's transaction is rolled back: it took longer than the application's timeout for \
                  transactions allows";
    Some(Fault::Refused(format!("{} ({}): {reason}", error.message(), error.code().unwrap_or_default())))
}

/// A clash that only an isolation level of the handler's own can lead to. It counts as a failed attempt, or a handler that
/// always clashes with the renewal of its lease would run for ever.
fn too_isolated() -> Fault {
    let reason = "could not serialize access (40001): the handler has set an isolation level under which it clashes with \
                  another transaction, or with the bus, which renews the message's lease; what needs such a level has to \
                  be done within a third of the lease";
    Fault::Refused(reason.to_owned())
}
