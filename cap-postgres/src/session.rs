//! One of our connections, for the length of one call.

use std::future::Future;
use std::time::Duration;

use cap_core::error::StorageError;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres};
use tokio::time::timeout;

use crate::error::Fault;
use crate::storage::Target;

/// How long a call may take. The server's own time-outs come first; this one is for a server that has gone silent.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

/// A connection of the pool. One on which a call was broken off, by a time-out or as its future was dropped, is closed
/// and not given to the next: nobody knows what it would answer, and the server rolls back what it was doing.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// There until this is dropped.
    connection: Option<PoolConnection<Postgres>>,
    operation: &'static str,
    target: &'a Target,
    is_whole: bool,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        connection: PoolConnection<Postgres>,
        operation: &'static str,
        target: &'a Target,
    ) -> Self {
        Self { connection: Some(connection), operation, target, is_whole: true }
    }

    /// Does the work on the connection, within the time for an answer.
    pub(crate) async fn run<'c, T, F, W>(&'c mut self, work: W) -> Result<T, StorageError>
    where
        W: FnOnce(&'c mut PgConnection) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        let Self { connection, operation, target, is_whole } = self;
        let Some(connection) = connection else {
            return Err(Fault::Unavailable("the connection is gone".to_owned()).into_error(operation, target));
        };
        *is_whole = false;
        let result = timeout(ANSWER_TIMEOUT, work(connection)).await;
        *is_whole = result.is_ok();
        result
            .unwrap_or_else(|_| Err(Fault::no_answer(ANSWER_TIMEOUT)))
            .map_err(|fault| fault.into_error(operation, target))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // Out of the pool, which would wait with its place for the server to say farewell, and closed.
        let broken = self.connection.take_if(|_| !self.is_whole);
        drop(broken.map(PoolConnection::detach));
    }
}
