//! The tables: the prefix of their names, their version, and how they come into being.

use sqlx::{Connection as _, Row as _, SqliteConnection};

use crate::error::Fault;
use crate::session::BEGIN;
use crate::statements::statement;

/// The version that this code needs. A minor version adds to the tables and leaves older code working; a newer major
/// version does not.
const MAJOR: i64 = 1;
const MINOR: i64 = 4;

/// What each minor version adds, in order.
const SCRIPTS: [&str; 5] = [
    include_str!("schema.sql"),
    include_str!("schema/retention_of_nodes.sql"),
    include_str!("schema/inbox_digest.sql"),
    include_str!("schema/process_crashes.sql"),
    include_str!("schema/shared_key.sql"),
];

/// The longest prefix, so that names stay readable.
const LONGEST: usize = 50;

/// What every table and view is called without the prefix.
const NAMES: [&str; 13] = [
    "attempts",
    "inbox",
    "inbox_state",
    "last_node",
    "nodes",
    "outbox",
    "outbox_state",
    "published",
    "received",
    "schema_version",
    "shared_key",
    "shortest_retention",
    "signals",
];

/// What the names of all tables begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TablePrefix {
    given: String,
    safe: String,
}

impl TablePrefix {
    pub(crate) fn new(prefix: &str) -> Self {
        let is_harmless = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        Self { given: prefix.to_owned(), safe: prefix.chars().filter(is_harmless).collect() }
    }

    /// The prefix as it stands in SQL: nothing gets in that could mean anything there, even if nobody has checked it.
    pub(crate) fn safe(&self) -> &str {
        &self.safe
    }

    /// That tables can have names that begin so.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let given = &self.given;
        let reason = if given.is_empty() {
            "is empty, so that the tables could be mistaken for the application's"
        } else if given.len() > LONGEST {
            "is longer than 50 characters"
        } else if self.safe != *given {
            "has other characters than letters, digits and _"
        } else if !given.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            "begins with a digit"
        } else if given.to_ascii_lowercase().starts_with("sqlite_") {
            "belongs to SQLite itself"
        } else {
            return Ok(());
        };
        let shown: String = given.chars().take(LONGEST + 1).collect();
        Err(Fault::Unusable(format!(
            "the tables' prefix {shown:?} {reason}: choose another, such as \"cap_\""
        )))
    }

    /// Everything that creates the tables, as SQL.
    pub(crate) fn sql(&self) -> String {
        SCRIPTS.map(|script| statement(self, script).as_str().to_owned()).join("\n")
    }
}

/// Creates the tables, or brings them to this version. Safe to call from many processes at once.
pub(crate) async fn initialize(connection: &mut SqliteConnection, prefix: &TablePrefix) -> Result<(), Fault> {
    let locking: String = sqlx::query_scalar("PRAGMA locking_mode").fetch_one(&mut *connection).await?;
    if locking.eq_ignore_ascii_case("exclusive") {
        return Err(Fault::Unusable(
            "the pool's options set locking_mode=EXCLUSIVE, under which the first connection keeps all others out: the bus \
             and the application need several, so remove it"
                .to_owned(),
        ));
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Fault::Unusable(format!(
            "the journal is in the mode {mode:?} and cannot be in WAL mode: give a file on a local disk; a store in \
             memory is cap_adapter::memory::MemoryStorage"
        )));
    }
    // On tables that are as they should be, nothing is locked.
    if version(connection, prefix).await?.is_some_and(|version| version >= (MAJOR, MINOR)) {
        return Ok(());
    }
    let mut transaction = connection.begin_with(BEGIN).await?;
    let done = version(&mut transaction, prefix).await?;
    let done = done.map_or(0, |(_, minor)| usize::try_from(minor).unwrap_or(0) + 1).min(SCRIPTS.len());
    for script in &SCRIPTS[done..] {
        sqlx::raw_sql(statement(prefix, script)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The highest version whose script has run. Looks without changing anything, and refuses what is not ours.
async fn version(
    connection: &mut SqliteConnection,
    prefix: &TablePrefix,
) -> Result<Option<(i64, i64)>, Fault> {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT lower(name) FROM sqlite_schema WHERE type IN ('table', 'view')")
            .fetch_all(&mut *connection)
            .await?;
    let full = |name: &str| format!("{}{name}", prefix.safe().to_ascii_lowercase());
    if !tables.contains(&full("schema_version")) {
        return match NAMES.iter().map(|name| full(name)).find(|name| tables.contains(name)) {
            None => Ok(None),
            Some(name) => Err(Fault::Unusable(format!(
                "there is a table {name} already, which is not cap's: choose another prefix, as in \
                 Sqlite::open(..).table_prefix(\"cap_rs_\"); nothing was changed"
            ))),
        };
    }
    let newest = statement(
        prefix,
        "SELECT major, minor FROM {prefix}schema_version ORDER BY major DESC, minor DESC LIMIT 1",
    );
    let version = sqlx::query(newest).fetch_optional(connection).await?;
    let version = version.map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?;
    match version {
        Some((major, minor)) if major != MAJOR => Err(Fault::Unusable(format!(
            "the tables {}* have version {major}.{minor}; this cap-sqlite works with {MAJOR}.x: use a cap-sqlite of that \
             major version, or another prefix",
            prefix.safe()
        ))),
        version => Ok(version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_prefix_gets_out_of_its_name() {
        let prefix = TablePrefix::new("a\"; DROP TABLE x; --{prefix}");
        assert_eq!(prefix.safe(), "aDROPTABLExprefix");
        assert!(prefix.check().is_err());
        assert!(!prefix.sql().contains("DROP TABLE"));
        assert!(!prefix.sql().contains("{prefix}"));
    }

    #[test]
    fn prefixes_that_no_table_can_have_are_refused_with_a_reason() {
        for (prefix, reason) in [
            ("", "empty"),
            ("a b", "other characters"),
            ("größe_", "other characters"),
            ("a\0b", "other characters"),
            ("1a", "digit"),
            ("SQLite_", "SQLite itself"),
            (&*"x".repeat(51), "50 characters"),
        ] {
            let error = TablePrefix::new(prefix).check().unwrap_err();
            let Fault::Unusable(text) = error else { panic!("{error:?}") };
            assert!(text.contains(reason), "{text}");
        }
        for prefix in ["cap_", "Shop2_events_", "_x"] {
            assert!(TablePrefix::new(prefix).check().is_ok(), "{prefix}");
        }
    }

    #[test]
    fn there_is_a_script_for_each_minor_version() {
        assert_eq!(SCRIPTS.len(), usize::try_from(MINOR).unwrap() + 1);
        for (minor, script) in SCRIPTS.iter().enumerate() {
            let version =
                format!("INSERT INTO {{prefix}}schema_version (major, minor) VALUES (1, {minor});\n");
            assert!(script.ends_with(&version), "{minor}");
        }
        for name in NAMES {
            assert!(SCRIPTS.iter().any(|script| script.contains(&format!(" {{prefix}}{name} "))), "{name}");
        }
    }
}
