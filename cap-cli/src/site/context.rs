//! A context: one installation of cap, by a name.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One installation, as it stands in the configuration file. Connection strings stand there, or in environment variables
/// that it names.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Context {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storage_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker_env: Option<String>,
    /// The schema in PostgreSQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<String>,
    /// The prefix of the tables in SQLite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table_prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exchange: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// Each act asks for the name of the context.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) production: bool,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("production", &self.production).finish_non_exhaustive()
    }
}
