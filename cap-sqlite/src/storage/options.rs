//! The settings of the storage, as a program or a configuration file gives them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::sqlite::Sqlite;

/// Every setting of [`Sqlite`] that a configuration file can hold, with its default.
///
/// ```
/// use cap_sqlite::SqliteOptions;
///
/// let options: SqliteOptions = serde_json::from_str(r#"{ "path": "/var/lib/shop/events.db" }"#)?;
/// assert_eq!(options.table_prefix, "cap_");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// The file, which is created if it is missing; see [`Sqlite::open`]. Default: `cap.db` in the current folder.
    pub path: PathBuf,
    /// The prefix of the names of all tables; see [`Sqlite::table_prefix`]. Default: `cap_`.
    pub table_prefix: String,
    /// How many connections the bus opens to read with; see [`Sqlite::connections`]. Default: 3.
    pub connections: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { path: "cap.db".into(), table_prefix: "cap_".to_owned(), connections: 3 }
    }
}

impl Sqlite {
    /// A storage with settings from elsewhere, such as a configuration file. The file is created as by
    /// [`open`](Self::open). Must be called on a tokio runtime.
    #[must_use]
    pub fn with_options(options: &SqliteOptions) -> Self {
        Self::open(&options.path).table_prefix(&options.table_prefix).connections(options.connections)
    }
}
