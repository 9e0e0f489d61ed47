//! Completes messages: writes their outcomes to the state rows. An outcome counts only while its lease holds.

use cap_adapter::storage::{Lease, RowCompletion, RowOutcome, Side};
use cap_sql::state_row::{CompletionKind, Due, StateChange};
use cap_sql::templates::{Sides, Templates};
use sqlx::{Row as _, SqliteConnection};

use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::deletion::Deletion;
use crate::write::work_left::Work;

// The write lock is held from before the fence is checked until the transaction ends: no node can claim the row in
// between.

const END: &str = "DELETE FROM {states} WHERE id = ?1 AND epoch = ?2 AND owner IS NOT NULL";

const FORGET: &str = "DELETE FROM {states} WHERE id = ?1 AND epoch = ?2 AND owner IS NOT NULL AND reruns = 0";

// A row that was re-run stays, with nothing in it but its epoch, so that another re-run goes on counting from there and
// no lease is ever given twice.
const EMPTY: &str = "
UPDATE {states}
SET status = 4, reruns = 0, due = NULL, expires = NULL, owner = NULL, reason = NULL, last_error = NULL
WHERE id = ?1 AND epoch = ?2 AND owner IS NOT NULL AND reruns > 0";

// Without a new status the row stays as it was, except for its owner and when it is due.
const CHANGE: &str = "
UPDATE {states} SET
    status = coalesce(?3, status),
    attempts = attempts + ?4,
    due = CASE WHEN ?5 THEN coalesce((SELECT m.added FROM {messages} AS m WHERE m.id = ?1), ?6) ELSE ?6 END,
    owner = ?7,
    reason = CASE WHEN ?3 IS NULL THEN reason ELSE ?8 END,
    last_error = coalesce(?9, last_error),
    expires = CASE WHEN ?3 IS NULL THEN expires ELSE ?10 END
WHERE id = ?1 AND epoch = ?2 AND owner IS NOT NULL
RETURNING attempts";

const RECORD: &str = "
INSERT INTO {prefix}attempts (side, id, number, at, node, error, next_due)
VALUES ({side}, ?1, ?2, ?3, ?4, ?5, ?6)";

/// Writes outcomes.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) end: Sides,
    pub(crate) forget: Sides,
    pub(crate) empty: Sides,
    pub(crate) change: Sides,
    pub(crate) record: Sides,
    pub(crate) deletion: Deletion,
}

impl Completion {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            end: templates.sides(END),
            forget: templates.sides(FORGET),
            empty: templates.sides(EMPTY),
            change: templates.sides(CHANGE),
            record: templates.sides(RECORD),
            deletion: Deletion::prepare(templates),
        }
    }

    /// Applies outcomes in their order, and returns for each whether its lease held.
    pub(crate) async fn complete(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        side: Side,
        row_completions: &[RowCompletion],
        work: &mut Work,
    ) -> Result<Vec<bool>, Fault> {
        let mut held = Vec::with_capacity(row_completions.len());
        for RowCompletion { lease, outcome, .. } in row_completions {
            held.push(self.apply(connection, writing, side, *lease, outcome, work).await?);
        }
        Ok(held)
    }

    async fn apply(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        side: Side,
        lease: Lease,
        outcome: &RowOutcome,
        work: &mut Work,
    ) -> Result<bool, Fault> {
        match CompletionKind::of(outcome) {
            CompletionKind::Forget => self.forget(connection, side, lease).await,
            CompletionKind::Delete => {
                let held = self.end(connection, side, lease).await?;
                if held {
                    self.deletion.delete(connection, side, &[lease.id]).await?;
                }
                Ok(held)
            }
            CompletionKind::Change => {
                let change = StateChange::of(outcome, writing.owner);
                let held = self.change(connection, writing, side, lease, &change).await?;
                if held && change.leaves_work() {
                    work.add(side);
                }
                Ok(held)
            }
        }
    }

    async fn forget(
        &self,
        connection: &mut SqliteConnection,
        side: Side,
        lease: Lease,
    ) -> Result<bool, Fault> {
        for statement in [&self.forget, &self.empty] {
            let forget = sqlx::query(statement.of(side)).bind(lease.id).bind(lease.epoch);
            if forget.execute(&mut *connection).await?.rows_affected() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes a state row, whatever its message.
    pub(crate) async fn end(
        &self,
        connection: &mut SqliteConnection,
        side: Side,
        lease: Lease,
    ) -> Result<bool, Fault> {
        let end = sqlx::query(self.end.of(side)).bind(lease.id).bind(lease.epoch);
        Ok(end.execute(connection).await?.rows_affected() > 0)
    }

    /// Changes a row, and returns whether its lease held.
    pub(crate) async fn change(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        side: Side,
        lease: Lease,
        change: &StateChange<'_>,
    ) -> Result<bool, Fault> {
        let later = |wait| writing.now + wait;
        // The message of a row that is due since it was added may be gone.
        let due = if change.due == Due::SinceAdded { Some(writing.now) } else { change.wait().map(later) };
        let changed = sqlx::query(self.change.of(side))
            .bind(lease.id)
            .bind(lease.epoch)
            .bind(change.status)
            .bind(change.counted)
            .bind(change.due == Due::SinceAdded)
            .bind(due)
            .bind(change.leased.then_some(&*writing.owner.node))
            .bind(change.reason)
            .bind(change.error.as_deref())
            .bind(change.keep.map(later))
            .fetch_optional(&mut *connection)
            .await?;
        let Some(row) = changed else { return Ok(false) };
        if change.counted {
            sqlx::query(self.record.of(side))
                .bind(lease.id)
                .bind(row.try_get::<i64, _>("attempts")?)
                .bind(writing.now)
                .bind(&*writing.owner.node)
                .bind(change.error.as_deref().unwrap_or_default())
                .bind(change.next.map(later))
                .execute(connection)
                .await?;
        }
        Ok(true)
    }
}
