//! One of our connections, for the length of one call.

use std::future::Future;
use std::time::Duration;

use cap_adapter::error::StorageError;
use sqlx::PgConnection;
use tokio::time::timeout;

use crate::connections::pool::Taken;
use crate::connections::server::{Purpose, Server};
use crate::database::error::Fault;

/// How long a call may take. The server's own timeouts come first; this one is for a server that has gone silent.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

/// A connection of the bus. One on which a call failed is closed and not used again: after a call that was interrupted, by a
/// timeout or as its future was dropped, it is not known what the connection would answer; the server may be the wrong one,
/// or shutting down; and a transaction that was dropped is rolled back, and its locks are released, only with the next
/// statement, or at once when the connection ends.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// There until this is dropped.
    taken: Option<Taken<'a>>,
    operation: &'static str,
    server: &'a Server,
    is_whole: bool,
}

impl<'a> Session<'a> {
    /// Waits for a connection. `operation` is what it is for, as errors name it: "claiming messages".
    pub(crate) async fn open(
        server: &'a Server,
        purpose: Purpose,
        operation: &'static str,
    ) -> Result<Self, StorageError> {
        match server.connections(purpose).take().await {
            Ok(taken) => Ok(Self { taken: Some(taken), operation, server, is_whole: true }),
            Err(fault) => Err(fault.into_error(operation, server.target())),
        }
    }

    /// Does the work on the connection, within the time for an answer.
    pub(crate) async fn run<'c, T, F, W>(&'c mut self, work: W) -> Result<T, StorageError>
    where
        W: FnOnce(&'c mut PgConnection) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        let Self { taken, operation, server, is_whole } = self;
        let Some(taken) = taken else {
            return Err(Fault::Unavailable("the connection is gone".to_owned())
                .into_error(operation, server.target()));
        };
        // Set again only when the work has ended: a future that is dropped leaves the connection to be closed.
        *is_whole = false;
        let result = timeout(ANSWER_TIMEOUT, work(&mut taken.connection)).await;
        let result = result.unwrap_or_else(|_| Err(Fault::no_answer(ANSWER_TIMEOUT)));
        let fault = match result {
            Ok(done) => {
                *is_whole = true;
                return Ok(done);
            }
            Err(fault) => fault,
        };
        if fault.is_wrong_server() {
            server.leave();
        }
        Err(fault.on_own_connection().into_error(operation, server.target()))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // One that is not whole is closed as it is dropped, without waiting for the server to end the session.
        if let Some(whole) = self.taken.take_if(|_| self.is_whole) {
            whole.put_back();
        }
    }
}
