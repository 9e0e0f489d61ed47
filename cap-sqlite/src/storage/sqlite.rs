//! The storage and its settings.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use cap_adapter::error::StorageError;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::connections::file_mode;
use crate::connections::pools::Connections;
use crate::database::table_prefix::TablePrefix;
use crate::schema::creation::{self, schema_sql};
use crate::storage::shared::Shared;
use crate::storage::statements::Statements;

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
    pub(crate) application: SqlitePool,
    pub(crate) prefix: TablePrefix,
    connections: u32,
    /// It waits for no writer that may belong to a blocked runtime.
    apart: bool,
    shared: Arc<OnceLock<Shared>>,
}

impl Sqlite {
    /// A storage in this file, which is created if it is missing, at once and readable only by its owner; its folder must
    /// be there. A file that is there keeps its mode. Must be called on a tokio runtime.
    #[must_use]
    pub fn open(path: impl AsRef<Path>) -> Self {
        // An absolute path is never taken for a URI, nor for a database in memory.
        let path = std::path::absolute(&path).unwrap_or_else(|_| path.as_ref().to_owned());
        file_mode::create(&path);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("fullfsync", "ON");
        Self::new(SqlitePoolOptions::new().connect_lazy_with(options))
    }

    /// A storage in the file that this pool opens, under the prefix `cap_`. The pool's options say whether it is created.
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

    /// The prefix of the names of all tables; `cap_` by default. Letters, digits and underscores.
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
        schema_sql(&TablePrefix::new(prefix))
    }

    /// The version of the tables that this version of cap needs, as major and minor. A start creates them or upgrades to it.
    pub const SCHEMA_VERSION: (i64, i64) = (creation::MAJOR, creation::MINOR);

    /// The version of the tables in the file, as major and minor; `None` if there are none. It changes no table. As
    /// [`open`](Self::open) does, it creates a missing file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, and tables that this version of cap cannot use: of another major version, or of another
    /// application under the same names.
    pub async fn schema_version(&self) -> Result<Option<(i64, i64)>, StorageError> {
        let mut session = self.shared().connections.reader("reading the version of the tables").await?;
        session.run(|connection| creation::version(connection, &self.prefix)).await
    }

    /// The application's own pool, as given, or as [`open`](Self::open) made it.
    #[must_use]
    pub fn pool(&self) -> &SqlitePool {
        &self.application
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.shared.get_or_init(|| Shared {
            connections: Connections::new(&self.application, self.connections, self.apart),
            statements: Statements::prepare(&self.prefix),
        })
    }

    /// The same storage on connections of its own, which wait for no writer of another runtime.
    pub(crate) fn on_own_connections(&self) -> Self {
        Self { connections: 1, apart: true, shared: Arc::default(), ..self.clone() }
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
