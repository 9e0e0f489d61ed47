//! Names the sessions that hold a lock for which a start has waited in vain.

use std::time::Duration;

use sqlx::{PgConnection, Row as _};

use crate::database::error::Fault;
use crate::database::schema_name::SchemaName;
use crate::schema::scripts::objects;

/// How long the bus waits for a lock as it starts. A session that waits for a table also blocks everyone behind it.
pub(crate) const START_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";

/// Sessions in a transaction that has written to our tables; as long as there is no schema, those that have written
/// anything in this database, since one of them creates it. Of roles with other rights the server shows no more than this.
const HOLDERS: &str = "
SELECT a.pid, a.usename::text AS role, a.application_name,
    extract(epoch FROM clock_timestamp() - a.xact_start)::bigint AS seconds
FROM pg_stat_activity AS a
WHERE a.pid <> pg_backend_pid() AND a.datname = current_database() AND a.pid IN (
    SELECT l.pid FROM pg_locks AS l
    WHERE l.granted AND CASE l.locktype
        WHEN 'relation' THEN l.mode <> 'AccessShareLock' AND l.relation IN (
            SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relname = ANY($2::text[])
        )
        WHEN 'transactionid' THEN
            l.mode = 'ExclusiveLock' AND NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = $1)
        ELSE false
    END
)
ORDER BY a.xact_start NULLS LAST, a.pid
LIMIT 3";

/// Adds the sessions that hold the lock to the error of a call that could not get it; any other error stays as it is. The
/// connection must not be in a transaction that has failed.
pub(crate) async fn name_holder(connection: &mut PgConnection, schema: &SchemaName, fault: Fault) -> Fault {
    if !fault.is_lock_timeout() {
        return fault;
    }
    let rows = sqlx::query(HOLDERS).bind(schema.name()).bind(objects()).fetch_all(connection).await;
    let holders: Vec<String> = rows.unwrap_or_default().iter().filter_map(described).collect();
    let who =
        if holders.is_empty() { "by a session that has ended since".to_owned() } else { holders.join(", ") };
    Fault::Unavailable(format!("{} is locked {who}", schema.described()))
}

fn described(row: &sqlx::postgres::PgRow) -> Option<String> {
    let pid: i32 = row.try_get("pid").ok()?;
    let role: Option<String> = row.try_get("role").ok()?;
    let application: Option<String> = row.try_get("application_name").ok()?;
    let since: Option<i64> = row.try_get("seconds").ok()?;
    let application = application.filter(|name| !name.is_empty());
    let application = application.map(|name| format!(" (application {name:?})")).unwrap_or_default();
    let since = since.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let since = since.map(|since| format!(", in a transaction open for {since:?}")).unwrap_or_default();
    Some(format!("by process {pid} of the role {:?}{application}{since}", role.unwrap_or_default()))
}
