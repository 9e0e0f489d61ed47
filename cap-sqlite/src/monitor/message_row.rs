//! Reads a message as an operator sees it.

use std::sync::Arc;

use bytes::Bytes;
use cap_adapter::monitor::Row;
use cap_adapter::storage::Side;
use cap_sql::columns::{count_of, reason_of, shown_message_of, status_of, time_of};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::database::error::Fault;

/// The columns that an operator sees. The attempts of a message without a state row are counted one by one.
const COLUMNS: &str = "
    m.id, m.version, m.name, {group} AS group_name, m.headers, m.body, m.added,
    (SELECT s.status FROM {states} AS s WHERE s.id = m.id) AS status,
    (SELECT s.reason FROM {states} AS s WHERE s.id = m.id) AS reason,
    (SELECT s.reruns FROM {states} AS s WHERE s.id = m.id) AS reruns,
    (SELECT s.last_error FROM {states} AS s WHERE s.id = m.id) AS last_error,
    (SELECT s.due FROM {states} AS s WHERE s.id = m.id) AS due,
    (SELECT s.expires FROM {states} AS s WHERE s.id = m.id) AS expires,
    (SELECT s.owner FROM {states} AS s WHERE s.id = m.id) AS owner,
    coalesce((SELECT s.attempts FROM {states} AS s WHERE s.id = m.id), {failed}) AS attempts";

/// The number of recorded attempts of a message.
const FAILED: &str = "(
        SELECT count(*) FROM {prefix}attempts AS a INDEXED BY {prefix}attempts_of
        WHERE a.side = {side} AND a.id = m.id AND a.crash_epoch IS NULL
    )";

/// Puts the columns into a template.
pub(crate) fn with_columns(template: &str) -> String {
    template.replace("{columns}", COLUMNS).replace("{failed}", FAILED)
}

/// Reads a row of these columns.
pub(crate) fn shown(side: Side, row: &SqliteRow) -> Result<Row, Fault> {
    let body = Bytes::from(row.try_get::<Vec<u8>, _>("body")?);
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
        added: time_of(row.try_get("added")?),
        due: row.try_get::<Option<i64>, _>("due")?.map(time_of),
        expires: row.try_get::<Option<i64>, _>("expires")?.map(time_of),
        owner: row.try_get("owner")?,
    })
}
