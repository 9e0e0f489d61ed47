//! Reads a message as an operator sees it.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use cap_adapter::monitor::Row;
use cap_adapter::storage::Side;
use cap_sql::columns::{count_of, reason_of, shown_message_of, status_of};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::database::columns::time_at;
use crate::database::error::Fault;

/// The columns that an operator sees. The attempts of a message without a state row are counted one by one.
const COLUMNS: &str = "
    m.id, m.version, m.name, {group} AS group_name, m.headers, m.body, m.added,
    s.status, s.reason, s.reruns, s.last_error, s.due, s.expires, s.owner,
    CASE
        WHEN s.id IS NOT NULL THEN s.attempts
        ELSE (SELECT count(*)::integer FROM {schema}.attempts AS a WHERE a.side = {side} AND a.id = m.id AND a.crash_epoch IS NULL)
    END AS attempts";

/// Puts the columns into a template.
pub(crate) fn with_columns(template: &str) -> String {
    template.replace("{columns}", COLUMNS)
}

/// Puts only the id into a template: messages are read only for the conditions.
pub(crate) fn with_ids(template: &str) -> String {
    template.replace("{columns}", "m.id")
}

/// Reads a row of these columns.
pub(crate) fn shown(side: Side, row: &PgRow) -> Result<Row, Fault> {
    let body = Bytes::copy_from_slice(row.try_get::<&[u8], _>("body")?);
    let message = shown_message_of(row.try_get::<&str, _>("headers")?, body);
    Ok(Row {
        id: row.try_get("id")?,
        side,
        version: row.try_get("version")?,
        name: row.try_get("name")?,
        group: Arc::from(row.try_get::<&str, _>("group_name")?),
        message,
        status: status_of(row.try_get("status")?),
        reason: reason_of(row.try_get("reason")?),
        attempts: count_of(row.try_get("attempts")?),
        reruns: count_of(row.try_get::<Option<i32>, _>("reruns")?.unwrap_or(0)),
        last_error: row.try_get("last_error")?,
        added: time_at(row, "added")?.unwrap_or(SystemTime::UNIX_EPOCH),
        due: time_at(row, "due")?,
        expires: time_at(row, "expires")?,
        owner: row.try_get("owner")?,
    })
}
