//! Which database it is, without a secret.

use std::fmt;

use sqlx::postgres::PgConnectOptions;

/// The address and the name of a database, as errors show them.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    host: String,
    port: u16,
    database: Option<String>,
}

impl Target {
    pub(crate) fn new(options: &PgConnectOptions) -> Self {
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        Self { host, port: options.get_port(), database: options.get_database().map(str::to_owned) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)?;
        match &self.database {
            Some(database) => write!(f, "/{database}"),
            None => Ok(()),
        }
    }
}
