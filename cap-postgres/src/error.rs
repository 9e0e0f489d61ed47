//! What may go wrong on the way to the database, and what the bus is to make of it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use cap_core::error::{StorageError, StorageErrorKind};

pub(crate) const NAME: &str = "PostgreSQL";

/// Why a call failed, before it is known what the call was for.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The driver or the server said so.
    Sql(sqlx::Error),
    /// The data can never be stored.
    Refused(String),
    /// The database is not what the bus needs.
    Unusable(String),
    /// It may succeed later.
    Unavailable(String),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl Fault {
    /// No answer came in time: whether the call took effect is not known.
    pub(crate) fn no_answer(limit: Duration) -> Self {
        Self::Unavailable(format!("no answer within {limit:?}"))
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

    fn code(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.code(),
            _ => None,
        }
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
            Self::Sql(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or(Cow::Borrowed("no code"));
                let text = format!("{} ({code}, {target})", error.message());
                new(kind_of_code(&code), &text).with_source(error)
            }
            Self::Sql(sqlx::Error::Io(error)) => {
                new(Unavailable, &format!("{error} ({target})")).with_source(error)
            }
            Self::Sql(sqlx::Error::PoolTimedOut) => {
                new(Unavailable, &format!("no connection to {target} could be had in time"))
            }
            Self::Sql(error) => new(kind_of_driver_error(&error), &format!("{error} ({target})")),
        }
    }
}

/// What an SQLSTATE means for the bus. What is not known here is taken as passing trouble: a message is then kept
/// and tried again, and a person reads the log.
fn kind_of_code(code: &str) -> StorageErrorKind {
    let class = code.get(..2).unwrap_or_default();
    match (class, code) {
        // The server turned read-only, as after a failover: the next connection finds the new primary.
        (_, "25006") => StorageErrorKind::Unavailable,
        // The value does not fit its column, breaks a rule of the table, or is too large for any index or row.
        // Also a transaction of the caller's that has failed already.
        ("22" | "23" | "54" | "25", _) => StorageErrorKind::Refused,
        // No such role, password, database, schema, table or column; no permission; not a feature of this server.
        ("28" | "3D" | "3F" | "42" | "0A", _) => StorageErrorKind::Unusable,
        _ => StorageErrorKind::Unavailable,
    }
}

fn kind_of_driver_error(error: &sqlx::Error) -> StorageErrorKind {
    use sqlx::Error;
    match error {
        Error::Encode(_) | Error::InvalidArgument(_) => StorageErrorKind::Refused,
        Error::Configuration(_)
        | Error::TypeNotFound { .. }
        | Error::ColumnIndexOutOfBounds { .. }
        | Error::ColumnNotFound(_)
        | Error::ColumnDecode { .. }
        | Error::Decode(_) => StorageErrorKind::Unusable,
        _ => StorageErrorKind::Unavailable,
    }
}

/// A text that the database can hold: PostgreSQL has no NUL character.
pub(crate) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
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
                &["08006", "40001", "40P01", "53300", "53100", "55P03", "57014", "57P01", "57P03", "25006"][..],
            ),
            (Refused, &["22001", "22P05", "23505", "23514", "54000", "25P02"]),
            (Unusable, &["28P01", "28000", "3D000", "3F000", "42501", "42P01", "42703"]),
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

    #[test]
    fn a_nul_is_replaced() {
        assert_eq!(without_nul("a\0b"), "a\u{fffd}b");
        assert!(matches!(without_nul("ab"), Cow::Borrowed("ab")));
    }
}
