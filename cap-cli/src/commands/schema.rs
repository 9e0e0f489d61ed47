//! `cap schema`: the tables.

use cap_postgres::Postgres;
use cap_sqlite::Sqlite;
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::Output;
use crate::site::{SchemaState, Settings, confirm, open_storage};

/// Which database.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Database {
    /// PostgreSQL
    Postgres,
    /// SQLite
    Sqlite,
}

/// What to do with the tables.
#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    /// Print the SQL that creates the tables; nothing is connected to
    Print {
        /// The database that the SQL is for
        #[arg(value_enum)]
        database: Database,
        /// Only what upgrades version 1.MINOR (PostgreSQL)
        #[arg(long, value_name = "MINOR")]
        from: Option<u32>,
    },
    /// Create the tables, or upgrade them
    Apply {
        /// Say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Whether the tables are as this version needs them
    Check,
}

pub(super) async fn run(command: &SchemaCommand, common: &Common, output: &Output) -> Result<(), Failure> {
    let settings = Settings::of(common)?;
    match command {
        SchemaCommand::Print { database, from } => {
            let sql = match (database, from) {
                (Database::Postgres, None) => Postgres::schema_sql(&settings.schema),
                (Database::Postgres, Some(minor)) => Postgres::schema_upgrade_sql(&settings.schema, *minor),
                (Database::Sqlite, None) => Sqlite::schema_sql(&settings.table_prefix),
                (Database::Sqlite, Some(_)) => {
                    return Err(Failure::Usage(
                        "--from is for PostgreSQL; cap schema apply upgrades SQLite".to_owned(),
                    ));
                }
            };
            output.print(&json!({ "sql": sql }), || sql.clone())
        }
        SchemaCommand::Apply { dry_run } => apply(*dry_run, &settings, common, output).await,
        SchemaCommand::Check => check(&settings, output).await,
    }
}

async fn apply(dry_run: bool, settings: &Settings, common: &Common, output: &Output) -> Result<(), Failure> {
    let storage = open_storage(settings)?;
    let before = storage.schema_state().await?;
    let (major, minor) = storage.needed();
    let action = match before {
        SchemaState::Missing => "create",
        SchemaState::Older { .. } => "upgrade",
        SchemaState::Current { .. } => "none",
    };
    if !dry_run && action != "none" {
        confirm(settings, common, &format!("{action} the tables"))?;
        storage.initialize(settings).await?;
    }
    let version = format!("{major}.{minor}");
    let object = json!({
        "action": action, "found": before.found(), "needed": version, "storage": storage.name(), "dry_run": dry_run,
    });
    output.print(&object, || match (action, dry_run) {
        ("none", _) => format!("the tables have version {} already", before.found().unwrap_or_default()),
        (action, true) => format!("would {action} the tables of version {version}"),
        (action, false) => format!("{action}: the tables have version {version}"),
    })
}

async fn check(settings: &Settings, output: &Output) -> Result<(), Failure> {
    let storage = open_storage(settings)?;
    let state = storage.schema_state().await?;
    let (major, minor) = storage.needed();
    let object = json!({
        "state": state.name(), "found": state.found(), "needed": format!("{major}.{minor}"), "storage": storage.name(),
    });
    output.print(&object, || {
        let found = state.found().map(|found| format!(", version {found}")).unwrap_or_default();
        format!("{}: the tables are {}{found}; this cap needs {major}.{minor}", storage.name(), state.name())
    })?;
    match state {
        SchemaState::Current { .. } => Ok(()),
        SchemaState::Missing => {
            Err(Failure::NotFound("there are no tables; create them with: cap schema apply".to_owned()))
        }
        SchemaState::Older { .. } => {
            Err(Failure::Unhealthy("the tables are older; upgrade them with: cap schema apply".to_owned()))
        }
    }
}
