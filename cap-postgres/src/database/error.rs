//! Errors of the database and of connections to it, and what each means for the bus.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use cap_adapter::error::{StorageError, StorageErrorKind};
use cap_sql::Refused;
use cap_sql::driver_error::{NoAnswer, kind_of_driver_error};

/// The name of this storage in errors.
pub(crate) const NAME: &str = "PostgreSQL";

/// Why a pooler in transaction mode cannot serve the bus. It follows what was found.
pub(crate) const NEEDS_SESSIONS: &str = "the bus needs sessions of its own, for LISTEN, prepared statements and \
     settings, and a pooler in transaction or statement mode has none: give the bus a direct address with \
     Postgres::new(pool).direct(\"postgres://..\"), or a pooler in session mode; the application's own pool, \
     transactions with within(..) and PgTx may stay behind this pooler";

/// The failure of a call, without what the call was for.
#[derive(Debug)]
pub(crate) enum Fault {
    /// An error of the driver or the server.
    Sql(sqlx::Error),
    /// The data can never be stored.
    Refused(String),
    /// The database is not what the bus needs.
    Unusable(String),
    /// It may succeed later.
    Unavailable(String),
    /// The server could not be connected to.
    NotConnected(sqlx::Error),
    /// The server takes no writes.
    ReadOnly,
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Refused> for Fault {
    fn from(Refused(reason): Refused) -> Self {
        Self::Refused(reason)
    }
}

impl From<NoAnswer> for Fault {
    fn from(no_answer: NoAnswer) -> Self {
        Self::Unavailable(no_answer.to_string())
    }
}

impl Fault {
    /// No answer came in time: whether the call took effect is not known.
    pub(crate) fn no_answer(limit: Duration) -> Self {
        NoAnswer(limit).into()
    }

    /// No connection came in time.
    pub(crate) fn no_connection() -> Self {
        Self::Sql(sqlx::Error::PoolTimedOut)
    }

    /// The driver or the server refused a connection.
    pub(crate) fn connecting(error: sqlx::Error) -> Self {
        let parameter =
            error.as_database_error().filter(|error| error.message().contains("startup parameter"));
        match parameter {
            // PgBouncer. Our own connections send as few as the driver can.
            Some(error) => Self::Unusable(format!(
                "the pooler refuses the connection ({}): add the parameter to its ignore_startup_parameters, or give the \
                 bus a direct address with Postgres::new(pool).direct(\"postgres://..\")",
                error.message()
            )),
            None => Self::NotConnected(error),
        }
    }

    /// The server's code of the error (SQLSTATE).
    fn code(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Sql(error) | Self::NotConnected(error) => error.as_database_error()?.code(),
            _ => None,
        }
    }

    /// Whether its server is, or may be, no longer the one to write to.
    pub(crate) fn is_wrong_server(&self) -> bool {
        match self {
            Self::ReadOnly | Self::NotConnected(_) | Self::Sql(sqlx::Error::Io(_)) => true,
            _ => self.code().is_some_and(|code| {
                code == "25006" || code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "57P03")
            }),
        }
    }

    /// As it is on a connection of the bus: nothing that is wrong with its transaction is the message's fault.
    pub(crate) fn on_own_connection(self) -> Self {
        let code = self.code().unwrap_or_default().into_owned();
        match self {
            Self::Sql(error) if code.starts_with("25") && code != "25006" => {
                Self::Unavailable(format!("{error} ({code}); the connection is closed"))
            }
            fault => fault,
        }
    }

    /// Whether a unique key of this name was violated.
    pub(crate) fn violates(&self, constraint: &str) -> bool {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.constraint() == Some(constraint),
            _ => false,
        }
    }

    /// Whether the server has ended the statement, as by its time limit.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.code().as_deref() == Some("57014"))
    }

    /// Whether the database's encoding lacks a character.
    pub(crate) fn is_outside_encoding(&self) -> bool {
        self.code().is_some_and(|code| matches!(&*code, "22P05" | "22021"))
    }

    /// Whether a lock could not be had in time.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        self.code().as_deref() == Some("55P03")
    }

    /// Whether the role may not do this.
    pub(crate) fn is_missing_right(&self) -> bool {
        self.code().as_deref() == Some("42501")
    }

    /// Whether something could not be created as another has just done so: a unique key of the catalog, a schema, a
    /// table, a function or another object of the name, or a row of the catalog that was changed meanwhile.
    pub(crate) fn is_already_there(&self) -> bool {
        let codes = ["23505", "42P06", "42P07", "42723", "42710", "40P01", "XX000"];
        self.code().is_some_and(|code| codes.contains(&&*code))
    }

    /// Whether the transaction clashed with another at its isolation level.
    pub(crate) fn is_serialization_failure(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40001"))
    }

    /// The error as the bus sees it. `operation` is what was tried, as in "claiming messages"; `target` is the
    /// database, without a secret.
    pub(crate) fn into_error(self, operation: &str, target: &impl fmt::Display) -> StorageError {
        use StorageErrorKind::{Refused, Unavailable, Unusable};
        let new = |kind, reason: &dyn fmt::Display| {
            StorageError::new(kind, NAME, format!("{operation} failed: {reason}"))
        };
        match self {
            Self::Refused(reason) => new(Refused, &reason),
            Self::Unusable(reason) => new(Unusable, &reason),
            Self::Unavailable(reason) => new(Unavailable, &format!("{reason} ({target})")),
            Self::ReadOnly => new(Unavailable, &format!("{READ_ONLY} ({target})")),
            // rustls reports what is wrong with the other side as bad data.
            Self::NotConnected(sqlx::Error::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                new(Unusable, &format!("no TLS connection to {target}: {error}: {CHECK_TLS}"))
                    .with_source(error)
            }
            Self::NotConnected(sqlx::Error::Tls(error)) => {
                new(Unusable, &format!("no TLS connection to {target}: {error}: {CHECK_TLS}"))
            }
            Self::NotConnected(sqlx::Error::Io(error)) => {
                new(Unavailable, &format!("no connection to {target}: {error}")).with_source(error)
            }
            Self::Sql(sqlx::Error::Database(error)) | Self::NotConnected(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or(Cow::Borrowed("no code"));
                let mut text = format!("{} ({code}, {target})", error.message());
                if let Some(hint) = hint(&code) {
                    text = format!("{text}: {hint}");
                }
                let is_full = matches!(&*code, "53100" | "53300" | "58030");
                let error = new(kind_of_code(&code), &text).with_source(error);
                if is_full { error.out_of_room() } else { error }
            }
            Self::Sql(sqlx::Error::Io(error)) => {
                new(Unavailable, &format!("{error} ({target})")).with_source(error)
            }
            Self::Sql(sqlx::Error::PoolTimedOut) => {
                new(Unavailable, &format!("no connection to {target} could be had in time"))
            }
            Self::Sql(error) | Self::NotConnected(error) => {
                new(kind_of_driver_error(&error), &format!("{error} ({target})"))
            }
        }
    }
}

const READ_ONLY: &str = "the server takes no writes: it is a standby, or was fenced off for a failover; this connection must \
                         not go back to its pool: see after_release under \"Failover\" in docs/operating.md";

const CHECK_TLS: &str =
    "check that the server's certificate is for this host and that sslrootcert has its authority";

/// What an operator can do about an SQLSTATE.
fn hint(code: &str) -> Option<&'static str> {
    match code {
        "25006" => Some(READ_ONLY),
        "26000" | "42P05" => Some(NEEDS_SESSIONS),
        _ => None,
    }
}

/// Whether the server, or a pooler before it, answered with this text.
pub(crate) fn is_database_error(fault: &Fault, text: &str) -> bool {
    matches!(fault, Fault::Sql(sqlx::Error::Database(error)) if error.message().contains(text))
}

/// What an SQLSTATE means for the bus. What is not known here is an outage: a message is then kept and tried again, and an
/// operator reads the log.
fn kind_of_code(code: &str) -> StorageErrorKind {
    let class = code.get(..2).unwrap_or_default();
    match (class, code) {
        // The server turned read-only, as after a failover: the next connection finds the new primary.
        // Or it has ended a transaction that stood still, as one of ours does when its process is frozen.
        (_, "25006" | "25P03" | "25P04") => StorageErrorKind::Unavailable,
        // The value does not fit its column, or breaks a rule of the table. Also a transaction of the caller's that has
        // failed already. Not class 54: a limit of the server's is an outage (a full NOTIFY queue, no more transaction
        // ids), and our own columns are checked before.
        ("22" | "23" | "25", _) => StorageErrorKind::Refused,
        // No such role, password, database, schema, table or column; no permission; not a feature of this server. Or a
        // prepared statement that is not there: a pooler that does not keep sessions apart.
        ("26" | "28" | "3D" | "3F" | "42" | "0A", _) => StorageErrorKind::Unusable,
        _ => StorageErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StorageErrorKind::{Refused, Unavailable, Unusable};

    #[test]
    fn codes_mean_what_the_bus_can_do_about_them() {
        for (kind, codes) in [
            (
                Unavailable,
                &[
                    "08006", "40001", "40P01", "53300", "53100", "55P03", "57014", "57P01", "57P03", "25006",
                    "54000", "54001", "25P03", "25P04", "58030",
                ][..],
            ),
            (Refused, &["22001", "22P05", "23505", "23514", "25P02"]),
            (Unusable, &["28P01", "28000", "3D000", "3F000", "42501", "42P01", "42703", "26000", "42P05"]),
        ] {
            for code in codes {
                assert_eq!(kind_of_code(code), kind, "{code}");
            }
        }
        assert_eq!(kind_of_code(""), Unavailable);
    }

    #[test]
    fn an_error_names_what_was_tried_and_where() {
        let error = Fault::Sql(sqlx::Error::PoolTimedOut).into_error("claiming messages", &"db:5432/shop");
        assert!(error.is_unavailable());
        assert_eq!(
            error.to_string(),
            "PostgreSQL: claiming messages failed: no connection to db:5432/shop could be had in time"
        );
    }
}
