//! Creates the schema, and brings it to the version that this code needs.

use sqlx::{Connection as _, PgConnection, Row as _};

use crate::database::error::Fault;
use crate::database::schema_name::SchemaName;
use crate::schema::lock_holders::{self, START_LOCK_TIMEOUT};
use crate::schema::ownership::{self, Trust};
use crate::schema::scripts::SCRIPTS;

/// The version that this code needs. A minor version adds to the schema and leaves older code working; a newer
/// major version does not.
pub(crate) const MAJOR: i32 = 1;
pub(crate) const MINOR: i32 = 6;

/// Names in the scripts mean those of PostgreSQL itself, whatever others have made in the schemas of the search path.
const PINNED_PATH: &str = "SET LOCAL search_path = pg_catalog, pg_temp";

/// The same around the printed SQL, which may run inside a transaction or outside of one. The session gets its own path
/// back.
const PINNED_AROUND: [&str; 2] = [
    "SELECT pg_catalog.set_config('cap.search_path', pg_catalog.current_setting('search_path'), false);\n\
     SET search_path = pg_catalog, pg_temp;",
    "SELECT pg_catalog.set_config('search_path', pg_catalog.current_setting('cap.search_path'), false);\n",
];

/// Returns the SQL that creates everything.
pub(crate) fn schema_sql(schema: &SchemaName) -> String {
    pinned(&format!("CREATE SCHEMA IF NOT EXISTS {};\n\n{}", schema.quoted(), scripts_from(schema, 0)))
}

/// Returns the SQL that brings a schema of version 1.`minor` to this version.
pub(crate) fn upgrade_sql(schema: &SchemaName, minor: usize) -> String {
    pinned(&scripts_from(schema, minor.saturating_add(1)))
}

fn scripts_from(schema: &SchemaName, first: usize) -> String {
    let templates = schema.templates();
    let scripts = SCRIPTS.iter().skip(first).map(|script| templates.one(script).as_str().to_owned());
    scripts.collect::<Vec<_>>().join("\n")
}

fn pinned(sql: &str) -> String {
    let [before, after] = PINNED_AROUND;
    format!("{before}\n{sql}\n{after}")
}

/// How often the schema is looked at again after another node was faster.
const TRIES: usize = 5;

/// Creates the schema, or brings it to this version. Safe to call from many nodes at once.
///
/// Nothing is locked that others could lock without rights of their own: who creates the schema second waits for the
/// first, fails as it is there, and finds it. From then on the row of the first version is the lock.
pub(crate) async fn initialize(
    connection: &mut PgConnection,
    schema: &SchemaName,
    trust: &Trust,
) -> Result<(), Fault> {
    let mut tries = 0;
    loop {
        // On a schema that is as it should be, nothing is locked and no right to create anything is needed.
        if inspect(connection, schema, trust).await?.is_current() {
            return Ok(());
        }
        tries += 1;
        match upgrade(connection, schema, trust).await {
            Err(fault) if tries < TRIES && fault.is_already_there() => {}
            Err(fault) => return Err(lock_holders::name_holder(connection, schema, fault).await),
            Ok(()) => return Ok(()),
        }
    }
}

/// The version of the schema in the database. Looks without changing anything. What is not ours is an error.
pub(crate) async fn version(
    connection: &mut PgConnection,
    schema: &SchemaName,
    trust: &Trust,
) -> Result<Option<(i32, i32)>, Fault> {
    Ok(inspect(connection, schema, trust).await?.version)
}

async fn upgrade(connection: &mut PgConnection, schema: &SchemaName, trust: &Trust) -> Result<(), Fault> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await?;
    sqlx::query(START_LOCK_TIMEOUT).execute(&mut *transaction).await?;
    sqlx::query(PINNED_PATH).execute(&mut *transaction).await?;
    let mut found = inspect(&mut transaction, schema, trust).await?;
    if let Some(version) = found.version {
        let lock = "SELECT FROM {schema}.schema_version WHERE major = 1 AND minor = 0 FOR UPDATE";
        let locked = sqlx::query(schema.templates().one(lock)).execute(&mut *transaction).await;
        locked.map_err(|error| cannot_upgrade(schema, version, error))?;
        // Whoever had the lock before may have done the work.
        found = inspect(&mut transaction, schema, trust).await?;
    }
    if !found.exists {
        sqlx::raw_sql(schema.templates().one("CREATE SCHEMA {schema}")).execute(&mut *transaction).await?;
    }
    for script in &SCRIPTS[found.scripts_done()..] {
        let done = sqlx::raw_sql(schema.templates().one(script)).execute(&mut *transaction).await;
        done.map_err(|error| match found.version {
            Some(version) => cannot_upgrade(schema, version, error),
            None => error.into(),
        })?;
    }
    transaction.commit().await?;
    Ok(())
}

/// A role that may not change the schema needs its owner's help, once for each version.
fn cannot_upgrade(schema: &SchemaName, (major, minor): (i32, i32), error: sqlx::Error) -> Fault {
    let fault = Fault::from(error);
    if !fault.is_missing_right() {
        return fault;
    }
    Fault::Unusable(format!(
        "{} has version {major}.{minor}, this cap-postgres needs {MAJOR}.{MINOR}, and this role may not change it: have its \
         owner run the SQL that Postgres::schema_upgrade_sql({:?}, {minor}) gives",
        schema.described(),
        schema.name()
    ))
}

/// The state of the schema in the database.
#[derive(Debug)]
struct Found {
    exists: bool,
    /// The highest version whose script has run.
    version: Option<(i32, i32)>,
}

impl Found {
    fn is_current(&self) -> bool {
        self.version.is_some_and(|version| version >= (MAJOR, MINOR))
    }

    fn scripts_done(&self) -> usize {
        self.version.map_or(0, |(_, minor)| usize::try_from(minor).unwrap_or(0) + 1).min(SCRIPTS.len())
    }
}

/// Looks without changing anything. What is not ours is an error.
async fn inspect(connection: &mut PgConnection, schema: &SchemaName, trust: &Trust) -> Result<Found, Fault> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(schema.name())
        .fetch_one(&mut *connection)
        .await?;
    let rows = sqlx::query(
        "SELECT c.relname::text, c.relkind::text FROM pg_class AS c
         JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname IN ('published', 'received', 'schema_version')",
    )
    .bind(schema.name())
    .fetch_all(&mut *connection)
    .await?;
    let mut is_versioned = false;
    for row in &rows {
        let name: &str = row.try_get(0)?;
        let kind: &str = row.try_get(1)?;
        // Ours of these names are views.
        if name != "schema_version" && matches!(kind, "r" | "p" | "f") {
            return Err(Fault::Unusable(format!(
                "the schema {quoted} holds the tables of .NET CAP ({quoted}.\"{name}\" is a table), which cap does not \
                 share: choose another schema, as in Postgres::new(pool).schema(\"cap_rs\"); nothing was changed",
                quoted = schema.quoted()
            )));
        }
        is_versioned |= name == "schema_version";
    }
    ownership::check(connection, schema, trust).await?;
    if !is_versioned {
        return Ok(Found { exists, version: None });
    }
    let newest = schema
        .templates()
        .one("SELECT major, minor FROM {schema}.schema_version ORDER BY major DESC, minor DESC LIMIT 1");
    let version = sqlx::query(newest).fetch_optional(connection).await?;
    let version = version.map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?;
    match version {
        Some((major, minor)) if major != MAJOR => Err(Fault::Unusable(format!(
            "the schema {} has version {major}.{minor}; this cap-postgres works with {MAJOR}.x: use a cap-postgres of \
             that major version, or another schema",
            schema.quoted()
        ))),
        version => Ok(Found { exists, version }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_name_cannot_get_out() {
        let sql = schema_sql(&SchemaName::new("a\"; DROP TABLE x; --"));
        assert!(sql.contains("CREATE SCHEMA IF NOT EXISTS \"a\"\"; DROP TABLE x; --\";"));
        assert!(!sql.contains("{schema}"));
    }

    #[test]
    fn there_is_a_script_for_each_minor_version() {
        assert_eq!(SCRIPTS.len(), usize::try_from(MINOR).unwrap() + 1);
        for (minor, script) in SCRIPTS.iter().enumerate() {
            let last =
                format!("INSERT INTO {{schema}}.schema_version (major, minor) VALUES ({MAJOR}, {minor});\n");
            assert!(script.ends_with(&last), "script {minor}");
        }
    }
}
