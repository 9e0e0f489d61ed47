//! Errors of the database, and what each means for the bus.

use std::fmt;
use std::io::ErrorKind as IoKind;
use std::time::Duration;

use cap_adapter::error::{StorageError, StorageErrorKind};
use cap_sql::Refused;
use cap_sql::driver_error::{NoAnswer, kind_of_driver_error};

/// The name of this storage in errors.
pub(crate) const NAME: &str = "SQLite";

// SQLite's result codes, without what extends them: https://www.sqlite.org/rescode.html
const ERROR: i32 = 1;
const PERM: i32 = 3;
const BUSY: i32 = 5;
const READONLY: i32 = 8;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const TOOBIG: i32 = 18;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const AUTH: i32 = 23;
const RANGE: i32 = 25;
const NOTADB: i32 = 26;

/// The extended code for a primary key that is there already.
const CONSTRAINT_PRIMARYKEY: i32 = 1555;

/// The failure of a call, without what the call was for.
#[derive(Debug)]
pub(crate) enum Fault {
    /// An error of the driver or of SQLite.
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

    /// The result code of SQLite, if it was SQLite that failed.
    fn code(&self) -> Option<i32> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.code()?.parse().ok(),
            _ => None,
        }
    }

    /// Whether a row id was used before, or is twice in a statement.
    pub(crate) fn is_taken_id(&self) -> bool {
        self.code() == Some(CONSTRAINT_PRIMARYKEY)
    }

    /// Whether a transaction was to be begun where there is one already.
    pub(crate) fn is_within_transaction(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.message().contains("within a transaction"),
            _ => false,
        }
    }

    /// The error as the driver's users know it.
    pub(crate) fn into_sqlx(self) -> sqlx::Error {
        match self {
            Self::Sql(error) => error,
            Self::Unavailable(reason) => sqlx::Error::Io(std::io::Error::new(IoKind::TimedOut, reason)),
            Self::Refused(reason) | Self::Unusable(reason) => sqlx::Error::Protocol(reason),
        }
    }

    /// Whether the connection can go on as it is. After trouble of another kind SQLite may have rolled the transaction
    /// back by itself, which the driver does not notice.
    pub(crate) fn spares_connection(&self) -> bool {
        match self {
            Self::Sql(_) => self.code().is_some_and(|code| matches!(primary(code), BUSY | CONSTRAINT)),
            _ => true,
        }
    }

    /// The error as the bus sees it. `operation` is what was tried, as in "claiming messages"; `target` is the file.
    pub(crate) fn into_error(self, operation: &str, target: &impl fmt::Display) -> StorageError {
        use StorageErrorKind::{Refused, Unavailable, Unusable};
        let new = |kind, reason: &dyn fmt::Display| {
            StorageError::new(kind, NAME, format!("{operation} failed: {reason}"))
        };
        let code = self.code();
        match self {
            Self::Refused(reason) => new(Refused, &reason),
            Self::Unusable(reason) => new(Unusable, &reason),
            Self::Unavailable(reason) => new(Unavailable, &format!("{reason} ({target})")),
            Self::Sql(sqlx::Error::Database(error)) => {
                let code = code.unwrap_or(ERROR);
                let text = format!("{} (code {code}, {target}){}", error.message(), advice(code));
                let is_full = primary(code) == FULL;
                let error = new(kind_of_code(code), &text).with_source(error);
                if is_full { error.out_of_room() } else { error }
            }
            Self::Sql(sqlx::Error::PoolTimedOut) => {
                new(Unavailable, &format!("no connection to {target} could be had in time"))
            }
            Self::Sql(error) => new(kind_of(&error), &format!("{error} ({target})")),
        }
    }
}

/// The code without what extends it.
fn primary(code: i32) -> i32 {
    code & 0xff
}

/// What a result code means for the bus. What is not known here is an outage, like a lock, a full disk or a failed read: a
/// message is then kept and tried again, and an operator reads the log.
fn kind_of_code(code: i32) -> StorageErrorKind {
    match primary(code) {
        // The value breaks a rule of the table, or is too large for any row.
        CONSTRAINT | TOOBIG | MISMATCH | RANGE => StorageErrorKind::Refused,
        // No such table or file; no right to it; not a database, or one that is damaged.
        ERROR | PERM | READONLY | CORRUPT | CANTOPEN | AUTH | NOTADB => StorageErrorKind::Unusable,
        _ => StorageErrorKind::Unavailable,
    }
}

/// What an operator can do about a result code.
fn advice(code: i32) -> &'static str {
    match primary(code) {
        CANTOPEN => ": the folder must be there, and this process must be allowed to write in it",
        READONLY => ": this process must be allowed to write to the file and its folder",
        NOTADB => ": the file is something else, or encrypted",
        CORRUPT => ": restore a backup, or rescue what is left with sqlite3's .recover",
        FULL => ": work waits until there is room",
        BUSY => {
            ": another transaction is open, or a connection has locking_mode=EXCLUSIVE, which keeps all others out: remove \
             that from the options of the pool"
        }
        _ => "",
    }
}

/// The kind of an error of the driver. A path that SQLite cannot have is an error of the settings.
fn kind_of(error: &sqlx::Error) -> StorageErrorKind {
    match error {
        sqlx::Error::Io(error) if matches!(error.kind(), IoKind::InvalidData | IoKind::InvalidInput) => {
            StorageErrorKind::Unusable
        }
        error => kind_of_driver_error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StorageErrorKind::{Refused, Unavailable, Unusable};

    #[test]
    fn codes_mean_what_the_bus_can_do_about_them() {
        for (kind, codes) in [
            // busy, its snapshot and recovery kinds, locked, no memory, read and write errors, full, protocol
            (Unavailable, &[5, 517, 261, 6, 7, 10, 266, 778, 13, 15, 9999][..]),
            // constraints of several kinds, too big, mismatch
            (Refused, &[19, 1299, 2067, 1555, 18, 20]),
            // no such table, read-only and its kinds, corrupt, cannot open, not a database
            (Unusable, &[1, 8, 1032, 11, 14, 26, 23, 3]),
        ] {
            for code in codes {
                assert_eq!(kind_of_code(*code), kind, "{code}");
            }
        }
    }

    #[test]
    fn an_error_names_what_was_tried_and_where() {
        let error = Fault::Sql(sqlx::Error::PoolTimedOut).into_error("claiming messages", &"/data/shop.db");
        assert!(error.is_unavailable());
        assert_eq!(
            error.to_string(),
            "SQLite: claiming messages failed: no connection to /data/shop.db could be had in time"
        );
    }
}
