//! The settings of the storage, as a program or a configuration file gives them.

use std::fmt;

use cap_adapter::UnverifiedTransport;
use cap_adapter::error::StorageError;
use serde::{Deserialize, Serialize};

use super::postgres::Postgres;

/// Every setting of [`Postgres`] that a configuration file can hold, with its default.
///
/// ```
/// use cap_postgres::PostgresOptions;
///
/// let options: PostgresOptions =
///     serde_json::from_str(r#"{ "url": "postgres://shop:secret@db.example/shop", "schema": "shop_events" }"#)?;
/// assert_eq!(options.connections, 4);
/// assert!(!format!("{options:?}").contains("secret"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// `postgres://user:password@host:5432/database`; see [`Postgres::connect_lazy`]. Default: `postgres://localhost`.
    pub url: String,
    /// Where the bus's own connections go if not to `url`; see [`Postgres::direct`]. Default: to `url`.
    pub direct: Option<String>,
    /// The schema of the tables; see [`Postgres::schema`]. Default: `cap`.
    pub schema: String,
    /// How many connections the bus opens for itself; see [`Postgres::connections`]. Default: 4.
    pub connections: u32,
    /// What to do about a connection to another host that is not verified: `warn`, `error` or `accept`; see
    /// [`Postgres::unverified_transport`]. Default: `warn`.
    pub unverified_transport: UnverifiedTransport,
    /// Roles that may own the schema; see [`Postgres::schema_owner`]. Default: none.
    pub schema_owners: Vec<String>,
    /// What may be attached to the tables; see [`Postgres::allow`]. Default: nothing.
    pub allow: Vec<String>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            url: "postgres://localhost".to_owned(),
            direct: None,
            schema: "cap".to_owned(),
            connections: 4,
            unverified_transport: UnverifiedTransport::default(),
            schema_owners: Vec::new(),
            allow: Vec::new(),
        }
    }
}

impl Postgres {
    /// A storage with settings from elsewhere, such as a configuration file. Nothing is connected to yet, but it must be
    /// called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// Of the kind `Unusable`, when the URL cannot be read; see [`connect_lazy`](Self::connect_lazy).
    pub fn with_options(options: &PostgresOptions) -> Result<Self, StorageError> {
        let mut storage = Self::connect_lazy(&options.url)?
            .schema(&options.schema)
            .connections(options.connections)
            .unverified_transport(options.unverified_transport);
        if let Some(url) = &options.direct {
            storage = storage.direct(url);
        }
        for role in &options.schema_owners {
            storage = storage.schema_owner(role);
        }
        for name in &options.allow {
            storage = storage.allow(name);
        }
        Ok(storage)
    }
}

/// Without the URLs, which may hold a password.
impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("schema", &self.schema)
            .field("connections", &self.connections)
            .field("unverified_transport", &self.unverified_transport)
            .field("schema_owners", &self.schema_owners)
            .field("allow", &self.allow)
            .finish_non_exhaustive()
    }
}
