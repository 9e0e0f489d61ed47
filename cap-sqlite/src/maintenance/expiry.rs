//! Deletes expired messages, a bounded number at a time.

use cap_adapter::storage::{Expiry, Side};
use cap_sql::columns::{limit_of, micros};
use cap_sql::templates::{Sides, Templates};
use sqlx::SqliteConnection;

use crate::connections::session::begin;
use crate::database::error::Fault;
use crate::write::deletion::Deletion;

/// Succeeded messages without an expiry of their own, oldest first.
const BY_AGE: &str = "
SELECT m.id FROM {messages} AS m INDEXED BY {messages}_added
WHERE m.added <= ?1
    AND NOT EXISTS (
        SELECT 1 FROM {states} AS s WHERE s.id = m.id AND NOT (s.status = 4 AND s.expires IS NULL)
    )
ORDER BY m.added, m.id
LIMIT ?2";

/// Messages whose state row has an expiry of its own.
const BY_STATE: &str = "
SELECT s.id FROM {states} AS s INDEXED BY {states}_expires
WHERE s.expires <= ?1
ORDER BY s.expires
LIMIT ?2";

/// Finds and deletes expired messages.
#[derive(Debug)]
pub(crate) struct ExpiredMessages {
    pub(crate) by_age: Sides,
    pub(crate) by_state: Sides,
}

impl ExpiredMessages {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { by_age: templates.sides(BY_AGE), by_state: templates.sides(BY_STATE) }
    }

    /// Deletes expired messages of both tables, and returns how many of each.
    pub(crate) async fn delete_all_expired(
        &self,
        connection: &mut SqliteConnection,
        deletion: &Deletion,
        expiry: &Expiry,
    ) -> Result<(u64, u64), Fault> {
        let (mut transaction, now) = begin(connection).await?;
        let outbox = self.delete_expired(&mut transaction, deletion, Side::Outbox, expiry, now).await?;
        let inbox = self.delete_expired(&mut transaction, deletion, Side::Inbox, expiry, now).await?;
        transaction.commit().await?;
        Ok((outbox, inbox))
    }

    async fn delete_expired(
        &self,
        connection: &mut SqliteConnection,
        deletion: &Deletion,
        side: Side,
        expiry: &Expiry,
        now: i64,
    ) -> Result<u64, Fault> {
        let limit = limit_of(expiry.limit);
        let mut ids: Vec<i64> = sqlx::query_scalar(self.by_age.of(side))
            .bind(now - micros(expiry.succeeded))
            .bind(limit)
            .fetch_all(&mut *connection)
            .await?;
        let left = limit.saturating_sub(limit_of(ids.len()));
        if left > 0 {
            let by_state: Vec<i64> = sqlx::query_scalar(self.by_state.of(side))
                .bind(now)
                .bind(left)
                .fetch_all(&mut *connection)
                .await?;
            ids.extend(by_state);
        }
        deletion.delete(connection, side, &ids).await
    }
}
