//! Deleting what has expired, a bounded number of rows at a time.

use cap_adapter::storage::{Expiry, Side};
use sqlx::SqliteConnection;

use crate::columns::micros;
use crate::error::Fault;
use crate::session::begin;
use crate::statements::Statements;

/// Messages that succeeded with nothing to tell, oldest first.
pub(crate) const BY_AGE: &str = "
SELECT m.id FROM {messages} AS m INDEXED BY {messages}_added
WHERE m.added <= ?1
    AND NOT EXISTS (
        SELECT 1 FROM {states} AS s WHERE s.id = m.id AND NOT (s.status = 4 AND s.expires IS NULL)
    )
ORDER BY m.added, m.id
LIMIT ?2";

/// Messages whose state row has an expiry of its own.
pub(crate) const BY_STATE: &str = "
SELECT s.id FROM {states} AS s INDEXED BY {states}_expires
WHERE s.expires <= ?1
ORDER BY s.expires
LIMIT ?2";

pub(crate) const DELETE_STATE: &str = "DELETE FROM {states} WHERE id = ?1";

pub(crate) const DELETE_ATTEMPTS: &str =
    "DELETE FROM {prefix}attempts INDEXED BY {prefix}attempts_of WHERE side = {side} AND id = ?1";

pub(crate) const DELETE_MESSAGE: &str = "DELETE FROM {messages} WHERE id = ?1";

/// Deletes what has expired in both tables, and says how much of each.
pub(crate) async fn delete_all_expired(
    connection: &mut SqliteConnection,
    statements: &Statements,
    expiry: &Expiry,
) -> Result<(u64, u64), Fault> {
    let (mut transaction, now) = begin(connection).await?;
    let outbox = delete_expired(&mut transaction, statements, Side::Outbox, expiry, now).await?;
    let inbox = delete_expired(&mut transaction, statements, Side::Inbox, expiry, now).await?;
    transaction.commit().await?;
    Ok((outbox, inbox))
}

async fn delete_expired(
    connection: &mut SqliteConnection,
    statements: &Statements,
    side: Side,
    expiry: &Expiry,
    now: i64,
) -> Result<u64, Fault> {
    let limit = i64::try_from(expiry.limit).unwrap_or(i64::MAX);
    let mut ids: Vec<i64> = sqlx::query_scalar(statements.expire_by_age.of(side))
        .bind(now - micros(expiry.succeeded))
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?;
    let left = limit.saturating_sub(i64::try_from(ids.len()).unwrap_or(i64::MAX));
    if left > 0 {
        let by_state: Vec<i64> = sqlx::query_scalar(statements.expire_by_state.of(side))
            .bind(now)
            .bind(left)
            .fetch_all(&mut *connection)
            .await?;
        ids.extend(by_state);
    }
    delete(connection, statements, side, &ids).await
}

/// Deletes messages with all that belongs to them, and says how many there were.
pub(crate) async fn delete(
    connection: &mut SqliteConnection,
    statements: &Statements,
    side: Side,
    ids: &[i64],
) -> Result<u64, Fault> {
    let mut deleted = 0;
    for id in ids {
        for statement in [&statements.delete_state, &statements.delete_attempts] {
            sqlx::query(statement.of(side)).bind(id).execute(&mut *connection).await?;
        }
        let message = sqlx::query(statements.delete_message.of(side)).bind(id);
        deleted += message.execute(&mut *connection).await?.rows_affected();
    }
    Ok(deleted)
}
