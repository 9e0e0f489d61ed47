//! Runs messages again, changes, cancels and deletes them.

use std::collections::HashSet;
use std::time::Duration;

use cap_adapter::monitor::{Among, Change};
use cap_adapter::storage::Side;
use cap_sql::columns::micros;
use cap_sql::list_filter::{changed_headers, in_requested_order};
use cap_sql::templates::{Sides, Templates};
use sqlx::{Connection as _, PgConnection, Row as _, SqlStr};

use crate::database::encoding::Encoding;
use crate::database::error::Fault;
use crate::maintenance::notify::announce;

/// How many messages are changed by one statement.
const CHANGED_TOGETHER: usize = 1000;

const LOCK_MESSAGES: &str =
    "SELECT m.id FROM {messages} AS m WHERE m.id = ANY($1::bigint[]) ORDER BY m.id FOR UPDATE";

// A message without a state row was never re-run, for the row of one that was stays. It gets a row whose epoch begins
// far above what its first one can have counted to: an outcome under that is never taken for a new one.
// Whether it failed is asked twice: of what is there now, and once more when the row's lock has come. One that has failed
// keeps its state row for as long as its message is locked.
const RERUN: &str = "
INSERT INTO {states} AS x
    (id, version, {group_column} status, attempts, attempts_before_rerun, reruns, epoch, due)
SELECT m.id, m.version, {group_value} 0, a.failed, a.failed, 1,
    1073741824, statement_timestamp()
FROM {messages} AS m
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS failed FROM {schema}.attempts AS a
    WHERE a.side = {side} AND a.id = m.id AND a.crash_epoch IS NULL
) AS a
WHERE m.id = ANY($1::bigint[])
    AND ($2::boolean OR EXISTS (SELECT FROM {states} AS s WHERE s.id = m.id AND s.status = 3))
ORDER BY m.id
ON CONFLICT (id) DO UPDATE SET
    status = 0,
    {no_crashes}
    attempts_before_rerun = x.attempts,
    reruns = x.reruns + 1,
    due = statement_timestamp(),
    owner = NULL,
    reason = NULL,
    expires = NULL
WHERE x.status = 3
    OR $2::boolean AND (x.owner IS NULL OR x.due IS NULL OR x.due <= statement_timestamp())
RETURNING x.id";

const HEADERS: &str = "SELECT m.id, m.headers FROM {messages} AS m WHERE m.id = ANY($1::bigint[])";

const CHANGE_MESSAGES: &str = "
UPDATE {messages} AS m SET headers = c.headers, body = coalesce($3::bytea, m.body)
FROM unnest($1::bigint[], $2::text[]) AS c(id, headers)
WHERE m.id = c.id";

const CANCEL: &str = "
UPDATE {schema}.outbox_state AS x SET
    status = 3,
    reason = 'cancelled',
    due = NULL,
    owner = NULL,
    expires = statement_timestamp() + $2::bigint * interval '1 microsecond'
WHERE x.id = ANY($1::bigint[]) AND x.status = 1
RETURNING x.id";

const DELETE: &str = "
WITH wanted AS (
    SELECT m.id FROM {messages} AS m WHERE m.id = ANY($1::bigint[])
), ended AS (
    DELETE FROM {states} AS s USING wanted AS w
    WHERE s.id = w.id AND (
        s.status = 3
        OR $2::boolean AND (s.owner IS NULL OR s.due IS NULL OR s.due <= statement_timestamp())
    )
    RETURNING s.id
), messages AS (
    DELETE FROM {messages} AS m USING wanted AS w
    WHERE m.id = w.id AND (
        m.id IN (SELECT e.id FROM ended AS e)
        OR $2::boolean AND NOT EXISTS (SELECT FROM {states} AS s WHERE s.id = m.id)
    )
    RETURNING m.id
), past AS (
    DELETE FROM {schema}.attempts AS a USING messages AS m WHERE a.side = {side} AND a.id = m.id
)
SELECT id FROM messages";

/// Runs again, changes, cancels and deletes.
#[derive(Debug)]
pub(crate) struct ChangeMessages {
    pub(crate) lock_messages: Sides,
    pub(crate) rerun: Sides,
    pub(crate) headers: Sides,
    pub(crate) change: Sides,
    pub(crate) cancel: SqlStr,
    pub(crate) delete: Sides,
}

impl ChangeMessages {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            lock_messages: templates.sides(LOCK_MESSAGES),
            rerun: templates.sides(RERUN),
            headers: templates.sides(HEADERS),
            change: templates.sides(CHANGE_MESSAGES),
            cancel: templates.one(CANCEL),
            delete: templates.sides(DELETE),
        }
    }

    /// Makes messages due now, with a change if there is one, and announces them on the channel.
    pub(crate) async fn rerun(
        &self,
        connection: &mut PgConnection,
        (channel, encoding): (&str, &Encoding),
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> Result<Vec<i64>, Fault> {
        let mut transaction = connection.begin().await?;
        // The lock keeps the collector from deleting a message while it gets a state row, and another operator from changing
        // it at the same time.
        self.lock_messages(&mut transaction, side, ids).await?;
        let done: Vec<i64> = sqlx::query_scalar(self.rerun.of(side))
            .bind(ids)
            .bind(among == Among::All)
            .fetch_all(&mut *transaction)
            .await?;
        if !change.is_empty() {
            for part in done.chunks(CHANGED_TOGETHER) {
                self.change(&mut transaction, encoding, side, part, change).await?;
            }
        }
        if !done.is_empty() {
            announce(&mut transaction, channel, side).await?;
        }
        transaction.commit().await?;
        Ok(in_order(ids, done))
    }

    /// Replaces messages by the changed ones. One whose headers cannot be read stays as it is, and is parked again as soon as
    /// it is claimed.
    async fn change(
        &self,
        connection: &mut PgConnection,
        encoding: &Encoding,
        side: Side,
        ids: &[i64],
        change: &Change,
    ) -> Result<(), Fault> {
        let rows = sqlx::query(self.headers.of(side)).bind(ids).fetch_all(&mut *connection).await?;
        let mut changed: Vec<(i64, String)> = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(headers) = changed_headers(row.try_get::<&str, _>("headers")?, change) {
                changed.push((row.try_get("id")?, encoding.headers(headers)));
            }
        }
        let (ids, headers): (Vec<i64>, Vec<String>) = changed.into_iter().unzip();
        sqlx::query(self.change.of(side))
            .bind(ids)
            .bind(headers)
            .bind(change.body.as_deref())
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Cancels delayed messages.
    pub(crate) async fn cancel(
        &self,
        connection: &mut PgConnection,
        ids: &[i64],
        keep: Duration,
    ) -> Result<Vec<i64>, Fault> {
        let query = sqlx::query_scalar(self.cancel.clone()).bind(ids).bind(micros(keep));
        Ok(in_order(ids, query.fetch_all(connection).await?))
    }

    /// Deletes messages that no node is handling.
    pub(crate) async fn delete(
        &self,
        connection: &mut PgConnection,
        side: Side,
        ids: &[i64],
        among: Among,
    ) -> Result<Vec<i64>, Fault> {
        let mut transaction = connection.begin().await?;
        self.lock_messages(&mut transaction, side, ids).await?;
        let done = sqlx::query_scalar(self.delete.of(side))
            .bind(ids)
            .bind(among == Among::All)
            .fetch_all(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(in_order(ids, done))
    }

    async fn lock_messages(
        &self,
        connection: &mut PgConnection,
        side: Side,
        ids: &[i64],
    ) -> Result<(), Fault> {
        sqlx::query(self.lock_messages.of(side)).bind(ids).execute(connection).await?;
        Ok(())
    }
}

/// The ids for which something was done, in the order of the request.
fn in_order(requested: &[i64], done: Vec<i64>) -> Vec<i64> {
    let done: HashSet<i64> = done.into_iter().collect();
    in_requested_order(requested, |id| done.contains(&id))
}
