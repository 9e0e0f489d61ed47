//! Runs messages again, changes, cancels and deletes them.

use std::time::Duration;

use cap_adapter::monitor::{Among, Change};
use cap_adapter::storage::Side;
use cap_sql::columns::micros;
use cap_sql::list_filter::changed_headers;
use cap_sql::templates::{Sides, Templates};
use sqlx::{SqlStr, SqliteConnection};

use crate::connections::session::begin;
use crate::database::error::Fault;
use crate::monitor::message_row::with_columns;
use crate::write::deletion::Deletion;
use crate::write::work_left::{Signals, Work};

// A message without a state row was never re-run, for the row of one that was stays. It gets a row whose epoch begins
// far above what its first one can have counted to: an outcome under that is never taken for a new one.
const RERUN: &str = "
INSERT INTO {states} AS x
    (id, version, {group_column} status, attempts, attempts_before_rerun, reruns, epoch, due)
SELECT m.id, m.version, {group_column} 0, {failed}, {failed}, 1, 1073741824, ?2
FROM {messages} AS m
WHERE m.id = ?1 AND (?3 OR EXISTS (SELECT 1 FROM {states} AS s WHERE s.id = m.id AND s.status = 3))
ON CONFLICT (id) DO UPDATE SET
    status = 0,
    {no_crashes}
    attempts_before_rerun = x.attempts,
    reruns = x.reruns + 1,
    due = ?2,
    owner = NULL,
    reason = NULL,
    expires = NULL
WHERE x.status = 3 OR x.owner IS NULL OR x.due IS NULL OR x.due <= ?2";

const HEADERS: &str = "SELECT m.headers FROM {messages} AS m WHERE m.id = ?1";

const CHANGE_MESSAGE: &str = "UPDATE {messages} SET headers = ?2, body = coalesce(?3, body) WHERE id = ?1";

const CANCEL: &str = "
UPDATE {prefix}outbox_state SET status = 3, reason = 'cancelled', due = NULL, owner = NULL, expires = ?2
WHERE id = ?1 AND status = 1";

/// The message, if no node is handling it.
const IDLE: &str = "
SELECT m.id FROM {messages} AS m
WHERE m.id = ?1
    AND (?3 OR EXISTS (SELECT 1 FROM {states} AS s WHERE s.id = m.id AND s.status = 3))
    AND NOT EXISTS (
        SELECT 1 FROM {states} AS s WHERE s.id = m.id AND s.status <> 3 AND s.owner IS NOT NULL AND s.due > ?2
    )";

/// Runs again, changes, cancels and deletes.
#[derive(Debug)]
pub(crate) struct ChangeMessages {
    pub(crate) rerun: Sides,
    pub(crate) headers: Sides,
    pub(crate) change: Sides,
    pub(crate) cancel: SqlStr,
    pub(crate) idle: Sides,
}

impl ChangeMessages {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            rerun: templates.sides(&with_columns(RERUN)),
            headers: templates.sides(HEADERS),
            change: templates.sides(CHANGE_MESSAGE),
            cancel: templates.one(CANCEL),
            idle: templates.sides(IDLE),
        }
    }

    /// Makes messages due now, with a change if there is one, and announces them.
    pub(crate) async fn rerun(
        &self,
        connection: &mut SqliteConnection,
        signals: &Signals,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> Result<Vec<i64>, Fault> {
        let (mut transaction, now) = begin(connection).await?;
        let mut done = Vec::new();
        for id in each(ids) {
            let rerun = sqlx::query(self.rerun.of(side)).bind(id).bind(now).bind(among == Among::All);
            if rerun.execute(&mut *transaction).await?.rows_affected() > 0 {
                self.change(&mut transaction, side, id, change).await?;
                done.push(id);
            }
        }
        if !done.is_empty() {
            let mut work = Work::default();
            work.add(side);
            work.announce(&mut transaction, signals).await?;
        }
        transaction.commit().await?;
        Ok(done)
    }

    /// Replaces a message by the changed one. One whose headers cannot be read stays as it is, and is parked again as soon as it
    /// is claimed.
    async fn change(
        &self,
        connection: &mut SqliteConnection,
        side: Side,
        id: i64,
        change: &Change,
    ) -> Result<(), Fault> {
        if change.is_empty() {
            return Ok(());
        }
        let headers: String =
            sqlx::query_scalar(self.headers.of(side)).bind(id).fetch_one(&mut *connection).await?;
        let Some(headers) = changed_headers(&headers, change) else { return Ok(()) };
        sqlx::query(self.change.of(side))
            .bind(id)
            .bind(headers)
            .bind(change.body.as_deref())
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Cancels delayed messages.
    pub(crate) async fn cancel(
        &self,
        connection: &mut SqliteConnection,
        ids: &[i64],
        keep: Duration,
    ) -> Result<Vec<i64>, Fault> {
        let (mut transaction, now) = begin(connection).await?;
        let mut done = Vec::new();
        for id in each(ids) {
            let cancel = sqlx::query(self.cancel.clone()).bind(id).bind(now + micros(keep));
            if cancel.execute(&mut *transaction).await?.rows_affected() > 0 {
                done.push(id);
            }
        }
        transaction.commit().await?;
        Ok(done)
    }

    /// Deletes messages that no node is handling.
    pub(crate) async fn delete(
        &self,
        connection: &mut SqliteConnection,
        deletion: &Deletion,
        side: Side,
        ids: &[i64],
        among: Among,
    ) -> Result<Vec<i64>, Fault> {
        let (mut transaction, now) = begin(connection).await?;
        let mut done = Vec::new();
        for id in each(ids) {
            let idle = sqlx::query(self.idle.of(side)).bind(id).bind(now).bind(among == Among::All);
            if idle.fetch_optional(&mut *transaction).await?.is_some() {
                done.push(id);
            }
        }
        deletion.delete(&mut transaction, side, &done).await?;
        transaction.commit().await?;
        Ok(done)
    }
}

/// The ids in the order of the request, each once.
fn each(requested: &[i64]) -> impl Iterator<Item = i64> {
    let mut seen = std::collections::HashSet::new();
    requested.iter().copied().filter(move |id| seen.insert(*id))
}
