//! The storage of a call.

use std::path::{Path, PathBuf};

use cap_core::{Operator, UnverifiedTransport};
use cap_postgres::Postgres;
use cap_sqlite::Sqlite;

use super::settings::Settings;
use crate::failure::Failure;

/// A storage that the command line can open. Nothing is connected to yet.
#[derive(Debug, Clone)]
pub(crate) enum AnyStorage {
    Postgres(Postgres),
    Sqlite(Sqlite, PathBuf),
}

/// The schema in the storage, beside what this version of cap needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SchemaState {
    Missing,
    Older {
        found: (i64, i64),
    },
    /// As needed, or a newer minor version, which is as good.
    Current {
        found: (i64, i64),
    },
}

impl SchemaState {
    /// The stable name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Older { .. } => "older",
            Self::Current { .. } => "current",
        }
    }

    pub(crate) fn found(self) -> Option<String> {
        match self {
            Self::Missing => None,
            Self::Older { found: (major, minor) } | Self::Current { found: (major, minor) } => {
                Some(format!("{major}.{minor}"))
            }
        }
    }
}

impl AnyStorage {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "PostgreSQL",
            Self::Sqlite(..) => "SQLite",
        }
    }

    /// The version that this program needs.
    pub(crate) fn needed(&self) -> (i64, i64) {
        match self {
            Self::Postgres(_) => {
                let (major, minor) = Postgres::SCHEMA_VERSION;
                (i64::from(major), i64::from(minor))
            }
            Self::Sqlite(..) => Sqlite::SCHEMA_VERSION,
        }
    }

    /// Looks at the schema without changing anything.
    pub(crate) async fn schema_state(&self) -> Result<SchemaState, Failure> {
        let found = match self {
            Self::Postgres(storage) => {
                let found = storage.schema_version().await?;
                found.map(|(major, minor)| (i64::from(major), i64::from(minor)))
            }
            // Opening it would create it.
            Self::Sqlite(_, path) if !path.exists() => None,
            Self::Sqlite(storage, _) => storage.schema_version().await?,
        };
        Ok(match found {
            None => SchemaState::Missing,
            Some(found) if found < self.needed() => SchemaState::Older { found },
            Some(found) => SchemaState::Current { found },
        })
    }

    /// Opens it for operators, and creates or upgrades the schema.
    pub(crate) async fn initialize(&self, settings: &Settings) -> Result<Operator, Failure> {
        let operator = match self {
            Self::Postgres(storage) => Operator::open(storage.clone()).await?,
            Self::Sqlite(storage, path) => {
                // The storage may have been made before the file was there.
                drop(Sqlite::open(path));
                Operator::open(storage.clone()).await?
            }
        };
        Ok(operator.version(&settings.version))
    }
}

/// The storage that the settings name.
pub(crate) fn open_storage(settings: &Settings) -> Result<AnyStorage, Failure> {
    let address = settings.storage()?;
    if let Some(path) = address.strip_prefix("sqlite://").or_else(|| address.strip_prefix("sqlite:")) {
        let path = Path::new(path).to_owned();
        if path.as_os_str().is_empty() {
            return Err(Failure::Usage(
                "the storage sqlite: names no file, as sqlite:shop.db does".to_owned(),
            ));
        }
        let storage = if path.exists() { Sqlite::open(&path) } else { Sqlite::new(missing_file(&path)) };
        return Ok(AnyStorage::Sqlite(storage.table_prefix(&settings.table_prefix), path));
    }
    if !["postgres://", "postgresql://"].iter().any(|scheme| address.starts_with(scheme)) {
        return Err(Failure::Usage(
            "the storage is not an address of the form postgres://user:password@host/database or sqlite:FILE"
                .to_owned(),
        ));
    }
    let storage = Postgres::connect_lazy(address)
        .map_err(|error| Failure::Usage(crate::failure::redacted(&error.to_string())))?;
    let storage = storage.schema(&settings.schema).connections(1);
    Ok(AnyStorage::Postgres(storage.unverified_transport(UnverifiedTransport::Accept)))
}

/// A pool for a file that is created only when the schema is.
fn missing_file(path: &Path) -> sqlx::SqlitePool {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    sqlx::sqlite::SqlitePoolOptions::new().connect_lazy_with(options)
}

/// The storage for operators. It must have its schema already: no command but `cap schema apply` changes that.
pub(crate) async fn open_operator(settings: &Settings) -> Result<Operator, Failure> {
    let storage = open_storage(settings)?;
    let state = storage.schema_state().await?;
    let (major, minor) = storage.needed();
    match state {
        SchemaState::Current { .. } => storage.initialize(settings).await,
        SchemaState::Missing => Err(Failure::NotFound(format!(
            "the storage has no tables of cap under these names; check the context, or create them with: cap schema apply \
             (version {major}.{minor})"
        ))),
        SchemaState::Older { found } => Err(Failure::Unhealthy(format!(
            "the schema has version {}.{}, and this cap needs {major}.{minor}: upgrade it with: cap schema apply",
            found.0, found.1
        ))),
    }
}
