//! The bus's own connections: one that writes, and a few that read.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::error::StorageError;
use sqlx::sqlite::{SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqlitePool};
use tokio::time::timeout;

use crate::connections::file::File;
use crate::connections::session::Session;
use crate::connections::target::Target;
use crate::database::error::Fault;

/// How long the bus waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the bus waits for a lock that another process has.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a renewal waits for its turn to write before it goes without.
const APART_PATIENCE: Duration = Duration::from_millis(200);

/// The bus's own connections.
pub(crate) struct Connections {
    writer: SqlitePool,
    readers: SqlitePool,
    /// It waits for no writer that may belong to a blocked runtime.
    apart: bool,
    pub(crate) file: Arc<File>,
    pub(crate) target: Target,
}

impl Connections {
    /// One to write with and up to `connections` to read with, of which none is open yet.
    pub(crate) fn new(application: &SqlitePool, connections: u32, apart: bool) -> Self {
        let options = (*application.connect_options()).clone();
        let path = options.get_filename().to_owned();
        let options = options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // Without it a Mac may lose what was synced.
            .pragma("fullfsync", "ON")
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let pool = |connections, options| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                // There is no network on which a connection could die.
                .test_before_acquire(false)
                .connect_lazy_with(options)
        };
        Self {
            writer: pool(1, options.clone()),
            readers: pool(connections, options.pragma("query_only", "ON")),
            apart,
            file: File::of(&path),
            target: Target(path),
        }
    }

    /// One of our connections to read with. `operation` is what it is for, as errors name it: "listing messages".
    pub(crate) async fn reader(&self, operation: &'static str) -> Result<Session<'_>, StorageError> {
        let connection = self.readers.acquire().await;
        let connection =
            connection.map_err(|error| Fault::from(error).into_error(operation, &self.target))?;
        Ok(Session::new(connection, None, operation, &self.target))
    }

    /// Our connection to write with, when it is our turn.
    pub(crate) async fn writer(&self, operation: &'static str) -> Result<Session<'_>, StorageError> {
        let connection = async {
            let turn = if self.apart {
                // The runtime that has the turn may be blocked. SQLite's own lock still keeps other writers out.
                timeout(APART_PATIENCE, self.file.turn()).await.ok().transpose()?
            } else {
                Some(self.file.turn().await?)
            };
            Ok((self.writer.acquire().await?, turn))
        };
        let (connection, turn) =
            connection.await.map_err(|fault: Fault| fault.into_error(operation, &self.target))?;
        Ok(Session::new(connection, turn, operation, &self.target))
    }
}
