//! Creates the tables, and brings them to the version that this code needs.

use sqlx::{Connection as _, Row as _, SqliteConnection};

use crate::connections::session::BEGIN;
use crate::database::error::Fault;
use crate::database::table_prefix::TablePrefix;

/// The version that this code needs. A minor version adds to the tables and leaves older code working; a newer major
/// version does not.
pub(crate) const MAJOR: i64 = 1;
pub(crate) const MINOR: i64 = 5;

/// The scripts, in order: each adds one minor version.
const SCRIPTS: [&str; 6] = [
    include_str!("schema.sql"),
    include_str!("retention_of_nodes.sql"),
    include_str!("inbox_digest.sql"),
    include_str!("process_crashes.sql"),
    include_str!("shared_key.sql"),
    include_str!("audit.sql"),
];

/// The names of all tables and views, without the prefix.
const NAMES: [&str; 14] = [
    "attempts",
    "audit",
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

/// Returns the SQL that creates the tables.
pub(crate) fn schema_sql(prefix: &TablePrefix) -> String {
    let templates = prefix.templates();
    SCRIPTS.map(|script| templates.one(script).as_str().to_owned()).join("\n")
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
            "the journal is in the mode {mode:?} and cannot be in WAL mode: use a file on a local disk; a storage in \
             memory is cap_memory::MemoryStorage"
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
        sqlx::raw_sql(prefix.templates().one(script)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The highest version whose script has run. Looks without changing anything. What is not ours is an error.
pub(crate) async fn version(
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
    let newest = prefix
        .templates()
        .one("SELECT major, minor FROM {prefix}schema_version ORDER BY major DESC, minor DESC LIMIT 1");
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
        let sql = schema_sql(&TablePrefix::new("a\"; DROP TABLE x; --{prefix}"));
        assert!(!sql.contains("DROP TABLE"));
        assert!(!sql.contains("{prefix}"));
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
