//! `cap doctor`: checks an installation and says what to do.

mod broker;
mod finding;
mod postgres;
mod sqlite;

use clap::Args;
use serde_json::json;

use self::finding::{Finding, State};
use crate::common::Common;
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::site::{AnyStorage, SchemaState, Settings, open_storage};

/// What to look at.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A group whose queue is expected, in full, with its version; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
}

pub(super) async fn run(arguments: &DoctorArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let settings = Settings::of(common)?;
    let storage = open_storage(&settings)?;
    let mut findings = match &storage {
        AnyStorage::Postgres(postgres) => postgres::check(postgres, &settings).await,
        AnyStorage::Sqlite(_, path) => sqlite::check(path),
    };
    let (schema, is_usable) = schema(&storage).await;
    findings.extend(schema);
    if settings.has_broker() {
        findings.extend(broker::check(&settings, &arguments.groups, is_usable).await?);
    } else {
        findings
            .push(Finding::skipped("broker", "no broker is named; use --broker, CAP_BROKER or a context"));
    }
    print(&findings, output)
}

/// The schema, and whether operators can work with it.
async fn schema(storage: &AnyStorage) -> (Vec<Finding>, bool) {
    let (major, minor) = storage.needed();
    let finding = match storage.schema_state().await {
        Err(error) => {
            Finding::problem("schema", error.to_string(), "fix what the storage reports, then run this again")
        }
        Ok(SchemaState::Missing) => Finding::problem(
            "schema",
            "there are no tables of cap under these names",
            "create them with: cap schema apply; or check the database and the schema of the context",
        ),
        Ok(SchemaState::Older { found }) => Finding::problem(
            "schema",
            format!("version {}.{}, and this cap needs {major}.{minor}", found.0, found.1),
            "upgrade it with: cap schema apply",
        ),
        Ok(SchemaState::Current { found }) => {
            Finding::ok("schema", format!("version {}.{}", found.0, found.1))
        }
    };
    let is_usable = finding.state == State::Ok;
    (vec![finding], is_usable)
}

fn print(findings: &[Finding], output: &Output) -> Result<(), Failure> {
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let problems = count(State::Problem);
    let object = json!({
        "healthy": problems == 0,
        "problems": problems,
        "warnings": count(State::Warning),
        "checks": findings.iter().map(|finding| json!({
            "check": finding.check, "state": finding.state.name(), "found": finding.found, "advice": finding.advice,
        })).collect::<Vec<_>>(),
    });
    output.print(&object, || {
        let mut table = Table::new(&["check", "state", "found"]);
        for finding in findings {
            table.row([finding.check, finding.state.name(), &finding.found]);
        }
        let advice = findings
            .iter()
            .filter_map(|finding| Some(format!("{}: {}", finding.check, finding.advice.as_ref()?)));
        let advice: Vec<String> = advice.collect();
        if advice.is_empty() {
            table.text()
        } else {
            format!("{}\n\nwhat to do\n{}", table.text(), advice.join("\n"))
        }
    })?;
    if problems == 0 { Ok(()) } else { Err(Failure::Unhealthy(format!("{problems} problems were found"))) }
}
