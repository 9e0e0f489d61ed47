//! One of our connections, for the length of one call.

use std::future::Future;
use std::time::{Duration, SystemTime};

use cap_adapter::error::StorageError;
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, SqliteConnection, Transaction};
use tokio::time::timeout;

use crate::connections::file::Turn;
use crate::connections::target::Target;
use crate::database::error::Fault;

/// How long a call may take. SQLite's own busy timeout comes first; this one is for a disk that has gone silent.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

/// Takes the write lock at once: a transaction that begins with reading can fail when it comes to write.
pub(crate) const BEGIN: &str = "BEGIN IMMEDIATE";

/// A connection of one of our pools, and the turn to write if it is the writer. One on which a call was interrupted, by a
/// timeout or as its future was dropped, is closed and not used again; so is one whose transaction SQLite may have ended by
/// itself.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    connection: PoolConnection<sqlx::Sqlite>,
    operation: &'static str,
    target: &'a Target,
    is_whole: bool,
    /// Dropped last, when the connection is on its way back.
    _turn: Option<Turn>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        connection: PoolConnection<sqlx::Sqlite>,
        turn: Option<Turn>,
        operation: &'static str,
        target: &'a Target,
    ) -> Self {
        Self { connection, operation, target, is_whole: true, _turn: turn }
    }

    /// Does the work on the connection, within the time for an answer.
    pub(crate) async fn run<'c, T, F, W>(&'c mut self, work: W) -> Result<T, StorageError>
    where
        W: FnOnce(&'c mut SqliteConnection) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        let Self { connection, operation, target, is_whole, .. } = self;
        *is_whole = false;
        let result = match timeout(ANSWER_TIMEOUT, work(connection)).await {
            Ok(result) => {
                *is_whole = result.as_ref().err().is_none_or(Fault::spares_connection);
                result
            }
            Err(_) => Err(Fault::no_answer(ANSWER_TIMEOUT)),
        };
        result.map_err(|fault| fault.into_error(operation, target))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.connection.close_on_drop();
        }
    }
}

/// Begins to write, and returns the time: one time for all that happens in the transaction.
pub(crate) async fn begin(
    connection: &mut SqliteConnection,
) -> Result<(Transaction<'_, sqlx::Sqlite>, i64), Fault> {
    let transaction = connection.begin_with(BEGIN).await?;
    Ok((transaction, now()))
}

/// Returns the time, in microseconds since 1970. All processes that share a file are on one machine and have its clock,
/// which is SQLite's too; but SQLite shows it in milliseconds, too coarse to tell which message came first.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
