//! How times and messages are read from rows.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use cap_adapter::message::Message;
use cap_sql::columns::message_of;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::time::OffsetDateTime;

/// Reads a time that may be missing.
pub(crate) fn time_at(row: &PgRow, column: &str) -> Result<Option<SystemTime>, sqlx::Error> {
    Ok(row.try_get::<Option<OffsetDateTime>, _>(column)?.map(SystemTime::from))
}

/// Reads the message of the columns `headers` and `body`, or what is wrong with the headers.
pub(crate) fn message_at(row: &PgRow) -> Result<Result<Arc<Message>, String>, sqlx::Error> {
    let body = Bytes::copy_from_slice(row.try_get::<&[u8], _>("body")?);
    Ok(message_of(row.try_get::<&str, _>("headers")?, body))
}
