//! The commands on a real PostgreSQL.

use serde_json::Value;
use sqlx::Connection as _;

use crate::support::{Ended, Folder, database_url, ended};

/// Runs a command on a schema, as a context would.
fn on(folder: &Folder, schema: &str, arguments: &[&str]) -> Ended {
    let mut command = folder.command(arguments);
    ended(&command.env("CAP_STORAGE", database_url()).env("CAP_SCHEMA", schema).output().unwrap())
}

#[tokio::test]
async fn tables_are_created_used_and_checked() {
    let (folder, schema) = (Folder::new(), format!("cli_{:08x}", fastrand::u32(..)));
    let run = |arguments: &[&str]| on(&folder, &schema, arguments);
    let json = |arguments: &[&str]| -> Value { run(&[arguments, &["--json"]].concat()).json() };
    run(&["schema", "check"]).failed(3, "there are no tables");
    run(&["messages", "list"]).failed(3, "cap schema apply");
    let doctor = run(&["doctor"]);
    doctor.failed(4, "problems were found");
    assert_eq!(json(&["schema", "apply"])["action"], "create");
    assert_eq!(json(&["schema", "check"])["state"], "current");
    assert_eq!(json(&["doctor"])["problems"], 0);
    assert_eq!(json(&["publish", "a", "--payload", "1", "--wait", "0s"])["state"], "stored");
    assert_eq!(json(&["messages", "list", "--published"])["messages"][0]["status"], "scheduled");
    assert_eq!(json(&["health"])["counts"][0]["count"], 1);
    run(&["health", "--max-waiting", "0"]).failed(4, "1 messages, more than 0");
    let mut connection = sqlx::PgConnection::connect(&database_url()).await.unwrap();
    let old = format!("DELETE FROM {schema}.schema_version WHERE minor > 3");
    sqlx::query(sqlx::AssertSqlSafe(old)).execute(&mut connection).await.unwrap();
    run(&["schema", "check"]).failed(4, "upgrade them with");
    run(&["messages", "list"]).failed(4, "the schema has version 1.3");
    let drop = format!("DROP SCHEMA {schema} CASCADE");
    sqlx::query(sqlx::AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
}

#[test]
fn a_server_that_is_not_there_is_named_without_its_password() {
    let folder = Folder::new();
    let gone = ["--storage", "postgres://u:s3cret@127.0.0.1:1/db"];
    folder.run(&[&["schema", "check"][..], &gone].concat()).failed(1, "127.0.0.1:1");
    folder.run(&[&["health"][..], &gone].concat()).failed(4, "storage: ");
}
