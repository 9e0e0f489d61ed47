//! All settings of a bus from one file and the environment.
//!
//! The file is TOML or JSON and has a section for each part: `bus` ([`CapOptions`]), one storage (`postgres`, `sqlite` or
//! `memory`) and one transport (`rabbitmq` or `memory`). Each setting can be overridden by an environment variable: `CAP`,
//! the section and the setting, separated by two underscores, as in `CAP__RABBITMQ__URL`. Elements of lists are separated by
//! commas.
//!
//! ```toml
//! [bus]
//! group_concurrency = 8
//! succeeded_expire_after = "2h"
//!
//! [postgres]
//! url = "postgres://shop@db.example/shop"
//! schema = "shop_events"
//!
//! [rabbitmq]
//! url = "amqps://shop@rabbit.example/shop"   # the password comes from CAP__RABBITMQ__URL
//! ```
//!
//! [`examples/cap.toml`](https://github.com/cap-rs/cap/blob/main/examples/cap.toml) lists every setting with its default.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use ::config::{ConfigBuilder, Environment, File, builder::DefaultState};
use cap_core::error::BoxError;
use cap_core::memory::{MemoryStorage, MemoryTransport};
use cap_core::{Cap, CapBuilder, CapOptions};
use serde::{Deserialize, Serialize};

/// All settings of a bus. A part without a section is not used; a setting that is not given has its default.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cap_bus::config::Config;
/// use cap_bus::prelude::*;
///
/// let config = Config::from_toml(
///     r#"
///     bus.group_concurrency = 8
///     memory = { storage = true, transport = true }
///     "#,
/// )?;
/// let cap = config.builder()?.handlers(Handlers::none()).start().await?;
/// assert_eq!(cap.options().group_concurrency, 8);
/// # cap.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The bus itself.
    pub bus: CapOptions,
    /// PostgreSQL as the storage.
    #[cfg(feature = "postgres")]
    pub postgres: Option<cap_postgres::PostgresOptions>,
    /// SQLite as the storage.
    #[cfg(feature = "sqlite")]
    pub sqlite: Option<cap_sqlite::SqliteOptions>,
    /// RabbitMQ as the transport.
    #[cfg(feature = "rabbitmq")]
    pub rabbitmq: Option<cap_rabbitmq::RabbitMqOptions>,
    /// The embedded storage and transport.
    pub memory: MemoryOptions,
}

/// What of the embedded pair is used. Both lose everything when the process ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MemoryOptions {
    /// Whether messages are stored in memory. Default: false.
    pub storage: bool,
    /// Whether messages are sent within the process. Default: false.
    pub transport: bool,
}

/// Why a configuration cannot be used. It repeats no value, since one may hold a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file or the environment holds something that is no setting.
    #[error("the configuration cannot be read: {0}")]
    Invalid(String),
    /// There is no such file, or it cannot be read.
    #[error("the configuration file {} cannot be read: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// No storage or no transport, or more than one.
    #[error(
        "the configuration needs exactly one {part}, but has {found}: give one of the sections {sections}"
    )]
    Choice {
        /// `storage` or `transport`.
        part: &'static str,
        /// How many it has.
        found: usize,
        /// What can be given.
        sections: &'static str,
    },
    /// The storage cannot be made of its settings.
    #[error("the storage cannot be made of its settings: {0}")]
    Storage(#[source] BoxError),
}

impl Config {
    /// Reads a file and the environment, which comes before the file. The file is JSON if its name ends with `.json`,
    /// otherwise TOML.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, an unknown setting, and a value of the wrong kind; with the setting's name.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|reason| ConfigError::File { path: path.to_owned(), reason })?;
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        Self::read(Some((&text, is_json)), true)
    }

    /// Reads the environment alone.
    ///
    /// # Errors
    ///
    /// An unknown setting, and a value of the wrong kind; with the setting's name.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(None, true)
    }

    /// Reads a text in TOML, without the environment.
    ///
    /// # Errors
    ///
    /// A text that is no TOML, an unknown setting, and a value of the wrong kind; with the setting's name.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::read(Some((text, false)), false)
    }

    fn read(text: Option<(&str, bool)>, environment: bool) -> Result<Self, ConfigError> {
        let mut sources = ::config::Config::builder();
        if let Some((text, is_json)) = text {
            let format = if is_json { ::config::FileFormat::Json } else { ::config::FileFormat::Toml };
            sources = sources.add_source(File::from_str(text, format));
        }
        if environment {
            sources = with_environment(sources);
        }
        let read = sources.build().map_err(|error| invalid(&error))?;
        read.try_deserialize().map_err(|error| invalid(&error))
    }

    /// A bus with these settings. Handlers, state and callbacks are added to the builder. It must be called on a tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// No storage or transport or more than one, and a database URL that cannot be read.
    pub fn builder(&self) -> Result<CapBuilder, ConfigError> {
        let builder = self.with_storage(Cap::builder().options(self.bus.clone()))?;
        self.with_transport(builder)
    }

    fn with_storage(&self, mut builder: CapBuilder) -> Result<CapBuilder, ConfigError> {
        let mut found = 0;
        #[cfg(feature = "postgres")]
        if let Some(options) = &self.postgres {
            let storage = cap_postgres::Postgres::with_options(options);
            builder = builder.storage(storage.map_err(|error| ConfigError::Storage(error.into()))?);
            found += 1;
        }
        #[cfg(feature = "sqlite")]
        if let Some(options) = &self.sqlite {
            builder = builder.storage(cap_sqlite::Sqlite::with_options(options));
            found += 1;
        }
        if self.memory.storage {
            builder = builder.storage(MemoryStorage::new());
            found += 1;
        }
        let sections = "[postgres] and [sqlite] (features of cap-bus), or `memory.storage = true`";
        exactly_one("storage", found, sections).map(|()| builder)
    }

    fn with_transport(&self, mut builder: CapBuilder) -> Result<CapBuilder, ConfigError> {
        let mut found = 0;
        #[cfg(feature = "rabbitmq")]
        if let Some(options) = &self.rabbitmq {
            builder = builder.transport(cap_rabbitmq::RabbitMq::with_options(options.clone()));
            found += 1;
        }
        if self.memory.transport {
            builder = builder.transport(MemoryTransport::new());
            found += 1;
        }
        exactly_one("transport", found, "[rabbitmq] (a feature of cap-bus), or `memory.transport = true`")
            .map(|()| builder)
    }
}

fn exactly_one(part: &'static str, found: usize, sections: &'static str) -> Result<(), ConfigError> {
    if found == 1 { Ok(()) } else { Err(ConfigError::Choice { part, found, sections }) }
}

/// The settings that are lists, so that a comma in another setting stays what it is.
const LISTS: [&str; 4] = ["bus.callbacks_to", "postgres.allow", "postgres.schema_owners", "rabbitmq.hosts"];

fn with_environment(sources: ConfigBuilder<DefaultState>) -> ConfigBuilder<DefaultState> {
    let mut environment = Environment::with_prefix("CAP")
        .prefix_separator("__")
        .separator("__")
        .try_parsing(true)
        .ignore_empty(true)
        .list_separator(",");
    for list in LISTS {
        environment = environment.with_list_parse_key(list);
    }
    sources.add_source(environment)
}

/// The error without the values that it quotes.
fn invalid(error: &::config::ConfigError) -> ConfigError {
    use ::config::ConfigError as Error;
    ConfigError::Invalid(match error {
        Error::Type { origin, expected, key, .. } => {
            format!("expected {expected}{}", place(key.as_deref(), origin.as_deref()))
        }
        Error::At { error, key, origin, .. } => {
            let inner = match invalid(error) {
                ConfigError::Invalid(text) => text,
                other => other.to_string(),
            };
            format!("{inner}{}", place(key.as_deref(), origin.as_deref()))
        }
        Error::NotFound(key) => format!("the setting {key} is missing"),
        Error::FileParse { cause, .. } => without_excerpt(cause),
        other => without_values(&other.to_string()),
    })
}

/// The setting and where it is given, as far as they are known.
fn place(key: Option<&str>, origin: Option<&str>) -> String {
    let key = key.map(|key| format!(" for {key}"));
    let origin = origin.map(|origin| format!(" in {origin}"));
    key.unwrap_or_default() + &origin.unwrap_or_default()
}

/// The position and the reason that a parser gives, without the line that it shows.
fn without_excerpt(cause: &dyn Display) -> String {
    let text = cause.to_string();
    let lines = text.lines().filter(|line| !line.contains('|'));
    without_values(&lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": "))
}

/// Serde quotes a value that it does not expect with double quotes, and the names of fields with backticks.
fn without_values(text: &str) -> String {
    let (mut shown, mut quoted, mut escaped) = (String::new(), false, false);
    for c in text.chars() {
        let ends = c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        if ends {
            quoted = !quoted;
            shown.push_str(if quoted { "<hidden>" } else { "" });
        } else if !quoted {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_are_hidden() {
        let text = r#"invalid value: string "a\"s3cret", expected a duration for `lease`"#;
        assert_eq!(without_values(text), "invalid value: string <hidden>, expected a duration for `lease`");
        assert_eq!(without_values(r#"ends in "s3cret"#), "ends in <hidden>");
    }

    #[test]
    fn excerpt_of_the_file_is_left_out() {
        let cause = "TOML parse error at line 1, column 7\n  |\n1 | url = s3cret\n  |       ^^^^\nstring values must be quoted\n";
        let shown = without_excerpt(&cause);
        assert_eq!(shown, "TOML parse error at line 1, column 7: string values must be quoted");
    }
}
