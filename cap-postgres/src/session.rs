//! One of our connections, for the length of one call.

use std::future::Future;
use std::time::Duration;

use cap_adapter::error::StorageError;
use sqlx::PgConnection;
use tokio::time::timeout;

use crate::connections::Taken;
use crate::error::Fault;
use crate::storage::Shared;

/// How long a call may take. The server's own time-outs come first; this one is for a server that has gone silent.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

/// A connection of the bus. One on which a call failed is closed and not given to the next. A call that was broken off,
/// by a time-out or as its future was dropped, leaves nobody knowing what the connection would answer; a server may be the
/// wrong one, or on its way down; and a transaction that was dropped is rolled back, and gives up its locks, with the next
/// thing that is sent, or at once when the connection ends.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// There until this is dropped.
    taken: Option<Taken<'a>>,
    operation: &'static str,
    shared: &'a Shared,
    is_whole: bool,
}

impl<'a> Session<'a> {
    pub(crate) fn new(taken: Taken<'a>, operation: &'static str, shared: &'a Shared) -> Self {
        Self { taken: Some(taken), operation, shared, is_whole: true }
    }

    /// Does the work on the connection, within the time for an answer.
    pub(crate) async fn run<'c, T, F, W>(&'c mut self, work: W) -> Result<T, StorageError>
    where
        W: FnOnce(&'c mut PgConnection) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        let Self { taken, operation, shared, is_whole } = self;
        let Some(taken) = taken else {
            return Err(
                Fault::Unavailable("the connection is gone".to_owned()).into_error(operation, &shared.target)
            );
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
            shared.leave_server();
        }
        Err(fault.on_own_connection().into_error(operation, &shared.target))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // One that is not whole is closed as it is dropped, without waiting for the server to say farewell.
        if let Some(whole) = self.taken.take_if(|_| self.is_whole) {
            whole.give_back();
        }
    }
}
