//! What `cap doctor` checks in PostgreSQL.

use std::time::{Duration, SystemTime};

use cap_postgres::Postgres;
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use super::finding::Finding;
use crate::site::Settings;

/// How long the server may take to answer all questions.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The oldest server that cap works with, as `server_version_num`.
const OLDEST: i32 = 120_000;
/// How far a clock may be off before it is worth a warning, in seconds.
const CLOCK_TOLERANCE: f64 = 5.0;

pub(super) async fn check(postgres: &Postgres, settings: &Settings) -> Vec<Finding> {
    let options = postgres.pool().connect_options();
    let asked = timeout(ANSWER_TIMEOUT, async {
        let mut connection = PgConnection::connect_with(&options).await?;
        let findings = ask(&mut connection, settings).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(findings)
    });
    match asked.await {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => {
            // A text of the server may be shown, one of the driver may repeat the address.
            let found = match &error {
                sqlx::Error::Database(error) => error.message().to_owned(),
                sqlx::Error::Io(error) => error.to_string(),
                _ => "the server cannot be reached".to_owned(),
            };
            vec![Finding::problem(
                "connection",
                crate::failure::redacted(&found),
                "check host, port, user, password, database and TLS",
            )]
        }
        Err(_) => vec![Finding::problem(
            "connection",
            format!("no answer within {}", humantime::format_duration(ANSWER_TIMEOUT)),
            "check the network between this machine and the server",
        )],
    }
}

async fn ask(connection: &mut PgConnection, settings: &Settings) -> Result<Vec<Finding>, sqlx::Error> {
    let mut findings = vec![Finding::ok("connection", "connected and logged in")];
    findings.push(version(connection).await?);
    findings.push(encoding(connection).await?);
    findings.push(clock(connection).await?);
    findings.push(pooler(connection).await?);
    findings.push(rights(connection, settings).await?);
    findings.push(replica(connection).await?);
    Ok(findings)
}

async fn version(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let number: i32 = sqlx::query_scalar("SELECT pg_catalog.current_setting('server_version_num')::int")
        .fetch_one(connection)
        .await?;
    let found = format!("PostgreSQL {}.{}", number / 10_000, number % 10_000);
    Ok(if number >= OLDEST {
        Finding::ok("server version", found)
    } else {
        Finding::problem("server version", found, "cap needs PostgreSQL 12 or newer")
    })
}

async fn encoding(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let encoding: String =
        sqlx::query_scalar("SELECT pg_catalog.getdatabaseencoding()::text").fetch_one(connection).await?;
    Ok(if encoding == "UTF8" {
        Finding::ok("encoding", encoding)
    } else {
        Finding::warning(
            "encoding",
            encoding,
            "messages with other characters are parked: use a database with UTF8",
        )
    })
}

/// Compares the clocks, with half of the round trip as tolerance.
async fn clock(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let before = SystemTime::now();
    let theirs: f64 = sqlx::query_scalar("SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8")
        .fetch_one(connection)
        .await?;
    let after = SystemTime::now();
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    };
    let difference = theirs - f64::midpoint(seconds(before), seconds(after));
    let found = format!("the server's clock differs by {difference:.3} s");
    Ok(if difference.abs() <= CLOCK_TOLERANCE {
        Finding::ok("clock", found)
    } else {
        Finding::warning(
            "clock",
            found,
            "synchronize the clocks: ids of messages contain the time of the node",
        )
    })
}

/// A pooler in transaction mode may give each statement another server process. Several may reach the same one by chance, so
/// that this can miss such a pooler; the start of a bus looks more closely.
async fn pooler(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let mut processes = Vec::new();
    for _ in 0..5 {
        let process: i32 =
            sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()").fetch_one(&mut *connection).await?;
        processes.push(process);
    }
    processes.dedup();
    Ok(if processes.len() == 1 {
        Finding::ok("pooler", "the session keeps its server process")
    } else {
        Finding::problem(
            "pooler",
            "statements of one session reach different server processes",
            "give the bus an address of the server itself or of a pooler in session mode: Postgres::direct",
        )
    })
}

async fn rights(connection: &mut PgConnection, settings: &Settings) -> Result<Finding, sqlx::Error> {
    let (schema_exists, may_use, may_create): (bool, Option<bool>, bool) = sqlx::query_as(
        "SELECT n.oid IS NOT NULL, pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
                pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
         FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = $1",
    )
    .bind(&settings.schema)
    .fetch_one(&mut *connection)
    .await?;
    if !schema_exists {
        return Ok(if may_create {
            Finding::ok("rights", "this role may create the schema")
        } else {
            Finding::problem(
                "rights",
                "the schema does not exist, and this role may not create it",
                "have the owner of the database run the SQL of: cap schema print postgres",
            )
        });
    }
    let schema = &settings.schema;
    if may_use != Some(true) {
        return Ok(Finding::problem(
            "rights",
            format!("this role may not use the schema {schema:?}"),
            format!(
                "have its owner run: GRANT USAGE ON SCHEMA {schema:?} TO the role; and grant it the tables"
            ),
        ));
    }
    let missing: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND c.relname <> 'schema_version'
           AND NOT (pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
                AND pg_catalog.has_table_privilege(c.oid, 'UPDATE') AND pg_catalog.has_table_privilege(c.oid, 'DELETE'))
         ORDER BY 1",
    )
    .bind(schema)
    .fetch_all(connection)
    .await?;
    Ok(if missing.is_empty() {
        Finding::ok("rights", "this role may read and change the tables")
    } else {
        Finding::problem(
            "rights",
            format!("this role may not read and change {}", missing.join(", ")),
            format!(
                "have the owner run: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema:?} TO the role"
            ),
        )
    })
}

async fn replica(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let read_only: bool = sqlx::query_scalar(
        "SELECT pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('transaction_read_only') = 'on'",
    )
    .fetch_one(connection)
    .await?;
    Ok(if read_only {
        Finding::problem("writable", "the server is read-only", "connect to the primary server")
    } else {
        Finding::ok("writable", "the server takes writes")
    })
}
