//! The store as the bus sees it.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cap_adapter::error::StorageError;
use cap_adapter::storage::{
    ClaimRequest, Claimed, Claims, Expiry, Lease, NodeRequest, Owner, SharedKey, Side, StartMark, Storage,
    Wake, WriteBatch, WriteReport,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqlitePool};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::claim::{self, Wanted};
use crate::error::{Fault, NAME};
use crate::file::File;
use crate::schema::TablePrefix;
use crate::session::Session;
use crate::statements::Statements;
use crate::{crash, expiry, listen, nodes, private, schema, shared_key, write};

/// How long the bus waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the bus waits for a lock that another process has.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a renewal waits for its turn to write before it goes without.
const APART_PATIENCE: Duration = Duration::from_millis(200);

/// How long processes that put a new file in order at the same time give way to each other.
const INITIALIZE_TIMEOUT: Duration = Duration::from_secs(5);

/// Stores messages in an SQLite file, in tables of its own.
///
/// The bus works on connections of its own, one that writes and a few that read, made with the options of the pool that
/// it is given: handlers that use up the application's pool cannot starve it. The application's pool serves
/// [`SqliteTx`](crate::SqliteTx). The file is put into WAL mode and must be on a local disk. Several processes on one
/// machine may share it; each learns of the others' work within a quarter of a second.
///
/// Space that deleted messages leave is used again; the file itself grows smaller only by `VACUUM`.
///
/// Nothing is opened before the bus starts. Clones share their connections.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use cap_sqlite::Sqlite;
///
/// let storage = Sqlite::open("shop.db").table_prefix("shop_events_");
/// let pool = storage.pool().clone(); // for the application's own tables
/// # }
/// ```
#[derive(Clone)]
pub struct Sqlite {
    application: SqlitePool,
    prefix: TablePrefix,
    connections: u32,
    /// It waits for nobody who may belong to a runtime that is blocked.
    apart: bool,
    shared: Arc<OnceLock<Shared>>,
}

/// What is made when it is first needed, and then shared by all clones.
struct Shared {
    writer: SqlitePool,
    readers: SqlitePool,
    statements: Statements,
    file: Arc<File>,
    target: Target,
}

/// Which file it is.
#[derive(Debug, Clone)]
pub(crate) struct Target(PathBuf);

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Sqlite {
    /// A store in this file, which is created if it is missing, at once and readable for its owner alone; its folder must
    /// be there. A file that is there keeps its mode. Must be called on a tokio runtime.
    #[must_use]
    pub fn open(path: impl AsRef<Path>) -> Self {
        // An absolute path is never taken for a URI, nor for a database in memory.
        let path = std::path::absolute(&path).unwrap_or_else(|_| path.as_ref().to_owned());
        private::create(&path);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("fullfsync", "ON");
        Self::new(SqlitePoolOptions::new().connect_lazy_with(options))
    }

    /// A store in the file that this pool opens, under the prefix `cap_`. The pool's options say whether it is created.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        Self {
            application: pool,
            prefix: TablePrefix::new("cap_"),
            connections: 3,
            apart: false,
            shared: Arc::default(),
        }
    }

    /// What the names of all tables begin with; `cap_` by default. Letters, digits and underscores.
    #[must_use]
    pub fn table_prefix(self, prefix: &str) -> Self {
        Self { prefix: TablePrefix::new(prefix), shared: Arc::default(), ..self }
    }

    /// How many connections the bus opens to read with, beside the one that writes; 3 by default, at least 1.
    #[must_use]
    pub fn connections(self, connections: u32) -> Self {
        Self { connections: connections.max(1), shared: Arc::default(), ..self }
    }

    /// The SQL that creates the tables with this prefix, for those who apply it themselves.
    #[must_use]
    pub fn schema_sql(prefix: &str) -> String {
        TablePrefix::new(prefix).sql()
    }

    /// The application's own pool, as given, or as [`open`](Self::open) made it.
    #[must_use]
    pub fn pool(&self) -> &SqlitePool {
        &self.application
    }

    fn shared(&self) -> &Shared {
        self.shared.get_or_init(|| {
            let options = (*self.application.connect_options()).clone();
            let path = options.get_filename().to_owned();
            let options = options
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                // Without it a Mac may lose what it was told to keep.
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
            Shared {
                writer: pool(1, options.clone()),
                readers: pool(self.connections, options.pragma("query_only", "ON")),
                statements: Statements::new(&self.prefix),
                file: File::of(&path),
                target: Target(path),
            }
        })
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.shared().statements
    }

    pub(crate) fn target(&self) -> &Target {
        &self.shared().target
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.shared().file
    }

    /// One of our connections to read with. `operation` is what it is for, as errors name it: "listing messages".
    pub(crate) async fn reader(&self, operation: &'static str) -> Result<Session<'_>, StorageError> {
        let shared = self.shared();
        let connection = shared.readers.acquire().await;
        let connection =
            connection.map_err(|error| Fault::from(error).into_error(operation, &shared.target))?;
        Ok(Session::new(connection, None, operation, &shared.target))
    }

    /// Our connection to write with, when it is our turn.
    pub(crate) async fn writer(&self, operation: &'static str) -> Result<Session<'_>, StorageError> {
        let shared = self.shared();
        let connection = async {
            let turn = if self.apart {
                // Whoever has the turn may be blocked. SQLite's own lock still keeps others out.
                timeout(APART_PATIENCE, shared.file.turn()).await.ok().transpose()?
            } else {
                Some(shared.file.turn().await?)
            };
            Ok((shared.writer.acquire().await?, turn))
        };
        let (connection, turn) =
            connection.await.map_err(|fault: Fault| fault.into_error(operation, &shared.target))?;
        Ok(Session::new(connection, turn, operation, &shared.target))
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("file", &self.application.connect_options().get_filename())
            .field("prefix", &self.prefix)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl Storage for Sqlite {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self) -> Result<(), StorageError> {
        self.prefix.check().map_err(|fault| fault.into_error("checking the settings", self.target()))
    }

    async fn initialize(&self) -> Result<(), StorageError> {
        let new = private::if_missing(self.application.connect_options().get_filename());
        let deadline = Instant::now() + INITIALIZE_TIMEOUT;
        loop {
            let prepared = async {
                let mut session = self.writer("preparing the tables").await?;
                session.run(|connection| schema::initialize(connection, &self.prefix)).await
            };
            match prepared.await {
                // SQLite does not wait for the lock that it needs to put a new file into WAL mode.
                Err(error) if error.is_unavailable() && Instant::now() < deadline => {
                    sleep(Duration::from_millis(20)).await;
                }
                result => {
                    if let Some(new) = &new {
                        private::restrict(new);
                    }
                    return result;
                }
            }
        }
    }

    async fn join(&self, request: &NodeRequest) -> Result<u16, StorageError> {
        let mut session = self.writer("claiming a worker id").await?;
        session.run(|connection| nodes::join(connection, self.statements(), request)).await
    }

    async fn keep_alive(&self, request: &NodeRequest, worker: u16) -> Result<bool, StorageError> {
        let mut session = self.writer("renewing the worker id").await?;
        session.run(|connection| nodes::keep_alive(connection, self.statements(), request, worker)).await
    }

    async fn leave(&self, node: &str, worker: u16) -> Result<(), StorageError> {
        let mut session = self.writer("giving the worker id back").await?;
        session.run(|connection| nodes::leave(connection, self.statements(), node, worker)).await
    }

    async fn shared_key(&self, fresh: &SharedKey) -> Result<Option<SharedKey>, StorageError> {
        let mut session = self.writer("reading the key of these tables").await?;
        let key =
            session.run(|connection| shared_key::shared_key(connection, self.statements(), fresh)).await?;
        Ok(Some(key))
    }

    async fn write(&self, owner: &Owner, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
        if batch.is_empty() {
            return Ok(WriteReport::default());
        }
        let mut session = self.writer("writing messages").await?;
        let (report, work) =
            session.run(|connection| write::write(connection, self.statements(), owner, batch)).await?;
        work.wake(self.file());
        Ok(report)
    }

    async fn claim(&self, owner: &Owner, request: &ClaimRequest) -> Result<Claims, StorageError> {
        const OPERATION: &str = "claiming messages";
        let wanted = Wanted::new(self.statements(), owner, request);
        let wanted = wanted.map_err(|fault| fault.into_error(OPERATION, self.target()))?;
        let mut session = self.reader(OPERATION).await?;
        if let Some(claims) = session.run(|connection| wanted.nothing_due(connection)).await? {
            return Ok(claims);
        }
        drop(session);
        let mut session = self.writer(OPERATION).await?;
        session.run(|connection| wanted.claim(connection)).await
    }

    async fn claim_waiting(
        &self,
        owner: &Owner,
        leases: &[Lease],
    ) -> Result<Vec<Option<Claimed>>, StorageError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.writer("claiming messages that the broker has kept").await?;
        session.run(|connection| claim::claim_waiting(connection, self.statements(), owner, leases)).await
    }

    async fn mark_started(&self, _owner: &Owner, marks: &[StartMark]) -> Result<Vec<bool>, StorageError> {
        let mut session = self.writer("noting that a handler starts").await?;
        session.run(|connection| crash::mark_started(connection, self.statements(), marks)).await
    }

    async fn withdraw_crashes(&self, leases: &[Lease]) -> Result<(), StorageError> {
        let mut session = self.writer("taking crashes back").await?;
        session.run(|connection| crash::withdraw_crashes(connection, self.statements(), leases)).await
    }

    async fn renew(&self, owner: &Owner, side: Side, leases: &[Lease]) -> Result<Vec<bool>, StorageError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.writer("renewing leases").await?;
        session.run(|connection| claim::renew(connection, self.statements(), owner, side, leases)).await
    }

    async fn delete_expired(&self, expiry: &Expiry) -> Result<(u64, u64), StorageError> {
        let mut session = self.writer("deleting expired messages").await?;
        session.run(|connection| expiry::delete_all_expired(connection, self.statements(), expiry)).await
    }

    async fn listen(&self, wake: Wake, cancelled: CancellationToken) {
        listen::listen(self, &wake, &cancelled).await;
    }

    fn apart(&self) -> Option<Self> {
        Some(Self { connections: 1, apart: true, shared: Arc::default(), ..self.clone() })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
