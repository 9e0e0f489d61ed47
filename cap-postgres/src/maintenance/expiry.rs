//! Deletes expired messages, a bounded number at a time.

use std::time::{Duration, SystemTime};

use cap_adapter::message::IdGenerator;
use cap_adapter::storage::{Expiry, Side};
use cap_sql::columns::{limit_of, micros};
use cap_sql::templates::{Sides, Templates};
use sqlx::{Connection as _, PgConnection};

use crate::database::error::Fault;

// Each statement locks what it is about to delete and skips what others have locked, so that it never waits. The
// locks are taken first and the conditions looked at again in `DELETE`, which has a newer view of the tables: a
// message that an operator has just re-run is then seen to have a state row.

/// Succeeded messages without an expiry of their own, oldest first. Ids rise with time, so that a range of them bounds the
/// search.
const BY_AGE: &str = "
SELECT m.id FROM {messages} AS m
WHERE m.id < $1 AND m.added <= statement_timestamp() - $2::bigint * interval '1 microsecond'
    AND NOT EXISTS (
        SELECT FROM {states} AS s WHERE s.id = m.id AND NOT (s.status = 4 AND s.expires IS NULL)
    )
ORDER BY m.id
LIMIT $3
FOR UPDATE OF m SKIP LOCKED";

/// Messages whose state row has an expiry of its own.
const BY_STATE: &str = "
SELECT s.id FROM {states} AS s
WHERE s.expires <= statement_timestamp()
ORDER BY s.expires
LIMIT $1
FOR UPDATE SKIP LOCKED";

const DELETE: &str = "
WITH ended AS (
    DELETE FROM {states} AS s
    USING unnest($1::bigint[]) AS e(id)
    WHERE s.id = e.id AND (s.expires <= statement_timestamp() OR (s.status = 4 AND s.expires IS NULL))
    RETURNING s.id
), messages AS (
    DELETE FROM {messages} AS m
    USING unnest($1::bigint[]) AS e(id)
    WHERE m.id = e.id AND NOT EXISTS (
        SELECT FROM {states} AS s
        WHERE s.id = m.id AND NOT coalesce(s.expires <= statement_timestamp(), s.status = 4)
    )
    RETURNING m.id
), past AS (
    DELETE FROM {schema}.attempts AS a USING messages AS m WHERE a.side = {side} AND a.id = m.id
)
SELECT count(*) FROM messages";

/// How far the clock of a node that made an id may be from ours without its messages being kept longer for it.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(3600);

/// Deletes expired messages.
#[derive(Debug)]
pub(crate) struct ExpiredMessages {
    pub(crate) by_age: Sides,
    pub(crate) by_state: Sides,
    pub(crate) delete: Sides,
}

impl ExpiredMessages {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            by_age: templates.sides(BY_AGE),
            by_state: templates.sides(BY_STATE),
            delete: templates.sides(DELETE),
        }
    }

    /// Deletes expired messages of both tables, and returns how many of each.
    pub(crate) async fn delete_all_expired(
        &self,
        connection: &mut PgConnection,
        expiry: &Expiry,
    ) -> Result<(u64, u64), Fault> {
        let outbox = self.delete_expired(connection, Side::Outbox, expiry).await?;
        let inbox = self.delete_expired(connection, Side::Inbox, expiry).await?;
        Ok((outbox, inbox))
    }

    async fn delete_expired(
        &self,
        connection: &mut PgConnection,
        side: Side,
        expiry: &Expiry,
    ) -> Result<u64, Fault> {
        let limit = limit_of(expiry.limit);
        let newest = SystemTime::now() + CLOCKS_DIFFER_BY;
        let newest = newest.checked_sub(expiry.succeeded).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut transaction = connection.begin().await?;
        let mut ids: Vec<i64> = sqlx::query_scalar(self.by_age.of(side))
            .bind(IdGenerator::first_id_at(newest))
            .bind(micros(expiry.succeeded))
            .bind(limit)
            .fetch_all(&mut *transaction)
            .await?;
        let left = limit.saturating_sub(limit_of(ids.len()));
        if left > 0 {
            let by_state: Vec<i64> =
                sqlx::query_scalar(self.by_state.of(side)).bind(left).fetch_all(&mut *transaction).await?;
            ids.extend(by_state);
        }
        let mut deleted: i64 = 0;
        if !ids.is_empty() {
            ids.sort_unstable();
            let delete = sqlx::query_scalar(self.delete.of(side)).bind(&ids);
            deleted = delete.fetch_one(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(u64::try_from(deleted).unwrap_or(0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use crate::database::schema_name::SchemaName;
    use crate::schema::creation::initialize;
    use crate::schema::ownership::Trust;
    use crate::test_pool::pool;

    /// Between the look at a message and its lock an operator may have re-run it: the deletion looks again.
    #[tokio::test]
    async fn what_has_got_a_state_row_meanwhile_is_kept() {
        let name = SchemaName::new(&format!("cap_expiry_{:016x}", fastrand::u64(..)));
        // Nothing is committed, and so nothing left behind.
        let mut transaction = pool().begin().await.unwrap();
        initialize(&mut transaction, &name, &Trust::default())
            .await
            .map_err(|fault| format!("{fault:?}"))
            .unwrap();
        let fill = "
            INSERT INTO {schema}.inbox (id, version, name, group_name, headers, body)
            SELECT g, 'v1', 'n', 'g', '{}', '' FROM generate_series(1, 2) AS g;
            INSERT INTO {schema}.inbox_state (id, version, group_name, status) VALUES (1, 'v1', 'g', 0)";
        sqlx::raw_sql(name.templates().one(fill)).execute(&mut *transaction).await.unwrap();
        let delete = ExpiredMessages::prepare(&name.templates()).delete.of(Side::Inbox);
        let deleted: i64 =
            sqlx::query_scalar(delete).bind(vec![1_i64, 2]).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(deleted, 1);
        let left = name.templates().one("SELECT id FROM {schema}.inbox JOIN {schema}.inbox_state USING (id)");
        let left: Vec<i64> = sqlx::query_scalar(left).fetch_all(&mut *transaction).await.unwrap();
        assert_eq!(left, [1]);
    }
}
