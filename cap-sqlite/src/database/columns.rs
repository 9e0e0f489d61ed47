//! How messages are read from rows.

use std::sync::Arc;

use bytes::Bytes;
use cap_adapter::message::Message;
use cap_sql::columns::message_of;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

/// Reads the message of the columns `headers` and `body`, or what is wrong with the headers.
pub(crate) fn message_at(row: &SqliteRow) -> Result<Result<Arc<Message>, String>, sqlx::Error> {
    let body = Bytes::from(row.try_get::<Vec<u8>, _>("body")?);
    Ok(message_of(row.try_get::<&str, _>("headers")?, body))
}
