//! What becomes of state rows: each word is said under a lease, and counts only while the row is held under it.

use std::borrow::Cow;

use cap_adapter::storage::{Lease, Reason, Retention, RowCompletion, RowOutcome, Side};
use sqlx::{Row as _, SqliteConnection};

use crate::columns::{FAILED, RETRYING, SUCCEEDED, micros};
use crate::error::{Fault, without_nul};
use crate::expiry;
use crate::insert::Writing;
use crate::work::Work;

// The write lock is held from before the fence is checked until the transaction ends: nobody can claim the row in
// between.

pub(crate) const END: &str = "DELETE FROM {states} WHERE id = ?1 AND epoch = ?2 AND owner IS NOT NULL";

pub(crate) const FORGET: &str =
    "DELETE FROM {states} WHERE id = ?1 AND epoch = ?2 AND owner IS NOT NULL AND reruns = 0";

// A row that was re-run stays, with nothing in it but its epoch, so that another re-run goes on counting from there and
// no lease is ever given twice.
pub(crate) const EMPTY: &str = "
UPDATE {states}
SET status = 4, reruns = 0, due = NULL, expires = NULL, owner = NULL, reason = NULL, last_error = NULL
WHERE id = ?1 AND epoch = ?2 AND owner IS NOT NULL AND reruns > 0";

// Without a new status the row stays as it was, save for its owner and when it is due.
pub(crate) const CHANGE: &str = "
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

pub(crate) const RECORD: &str = "
INSERT INTO {prefix}attempts (side, id, number, at, node, error, next_due)
VALUES ({side}, ?1, ?2, ?3, ?4, ?5, ?6)";

/// Applies outcomes in their order, and says of each whether its lease held.
pub(crate) async fn complete(
    connection: &mut SqliteConnection,
    writing: Writing<'_>,
    side: Side,
    row_completions: &[RowCompletion],
    work: &mut Work,
) -> Result<Vec<bool>, Fault> {
    let mut held = Vec::with_capacity(row_completions.len());
    for RowCompletion { lease, outcome, .. } in row_completions {
        held.push(apply(connection, writing, side, *lease, outcome, work).await?);
    }
    Ok(held)
}

async fn apply(
    connection: &mut SqliteConnection,
    writing: Writing<'_>,
    side: Side,
    lease: Lease,
    outcome: &RowOutcome,
    work: &mut Work,
) -> Result<bool, Fault> {
    match outcome {
        RowOutcome::Succeeded { retention: Retention::Forget, reason: None } => {
            forget(connection, writing, side, lease).await
        }
        RowOutcome::Succeeded { retention: Retention::Delete, reason: None } => {
            let held = end(connection, writing, side, lease).await?;
            if held {
                expiry::delete(connection, writing.statements, side, &[lease.id]).await?;
            }
            Ok(held)
        }
        outcome => {
            let change = Change::new(outcome, writing);
            let held = change.apply(connection, writing, side, lease).await?;
            if held && change.leaves_work() {
                work.add(side);
            }
            Ok(held)
        }
    }
}

async fn forget(
    connection: &mut SqliteConnection,
    writing: Writing<'_>,
    side: Side,
    lease: Lease,
) -> Result<bool, Fault> {
    for statement in [&writing.statements.forget, &writing.statements.empty] {
        let forget = sqlx::query(statement.of(side)).bind(lease.id).bind(lease.epoch);
        if forget.execute(&mut *connection).await?.rows_affected() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes a state row without a word about its message.
pub(crate) async fn end(
    connection: &mut SqliteConnection,
    writing: Writing<'_>,
    side: Side,
    lease: Lease,
) -> Result<bool, Fault> {
    let end = sqlx::query(writing.statements.end.of(side)).bind(lease.id).bind(lease.epoch);
    Ok(end.execute(connection).await?.rows_affected() > 0)
}

/// What a state row is changed to.
#[derive(Debug, Default)]
pub(crate) struct Change<'a> {
    /// None: as it was, with its reason and expiry.
    status: Option<i64>,
    counted: bool,
    due: Due,
    held: bool,
    reason: Option<&'static str>,
    error: Option<Cow<'a, str>>,
    expires: Option<i64>,
    /// When the next attempt is due, to be recorded with the one that failed.
    next: Option<i64>,
}

/// From when on a row may be claimed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Due {
    #[default]
    Never,
    /// Since its message was added.
    SinceAdded,
    At(i64),
    /// Then, if the broker has not come before.
    WithoutBroker(i64),
}

impl<'a> Change<'a> {
    /// A row that cannot be read: it has failed, and stays until an operator has seen it.
    pub(crate) fn corrupt(error: &'a str) -> Self {
        let reason = Some(Reason::Corrupt.as_str());
        Self { status: Some(FAILED), reason, error: Some(without_nul(error)), ..Self::default() }
    }

    fn new(outcome: &'a RowOutcome, writing: Writing<'_>) -> Self {
        let after = |span| writing.now + micros(span);
        match outcome {
            RowOutcome::Succeeded { retention, reason } => Self {
                status: Some(SUCCEEDED),
                reason: reason.map(Reason::as_str),
                expires: match retention {
                    Retention::Keep(keep) => Some(after(*keep)),
                    // Kept for its reason as long as a message that has nothing to tell, or until the collector
                    // comes by.
                    Retention::Forget => None,
                    Retention::Delete => Some(writing.now),
                },
                ..Self::default()
            },
            RowOutcome::Retry { after: wait, hold, error } => Self {
                status: Some(RETRYING),
                counted: true,
                due: Due::At(if *hold { writing.lease_end() } else { after(*wait) }),
                held: *hold,
                error: Some(without_nul(error)),
                next: Some(if *hold { writing.now } else { after(*wait) }),
                ..Self::default()
            },
            RowOutcome::RetryAtBroker { after: wait, spare, error } => Self {
                status: Some(RETRYING),
                counted: true,
                due: Due::WithoutBroker(after(wait.saturating_add(*spare))),
                error: Some(without_nul(error)),
                next: Some(after(*wait)),
                ..Self::default()
            },
            RowOutcome::Failed { reason, error, counted, keep, notify } => Self {
                status: Some(FAILED),
                counted: *counted,
                due: if *notify { Due::At(writing.lease_end()) } else { Due::Never },
                held: *notify,
                reason: Some(reason.as_str()),
                error: Some(without_nul(error)),
                expires: Some(after(*keep)),
                ..Self::default()
            },
            RowOutcome::Notified => Self::default(),
            RowOutcome::Release { after: wait } => {
                let due = if wait.is_zero() { Due::SinceAdded } else { Due::At(after(*wait)) };
                Self { due, ..Self::default() }
            }
        }
    }

    /// Whether other nodes should know when the row is due. What the broker keeps concerns them only if it does not
    /// come, and they find that out by themselves.
    fn leaves_work(&self) -> bool {
        !self.held && matches!(self.due, Due::SinceAdded | Due::At(_))
    }

    /// Changes a row, and says whether its lease held.
    pub(crate) async fn apply(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        side: Side,
        lease: Lease,
    ) -> Result<bool, Fault> {
        let due = match self.due {
            Due::Never => None,
            // For a row whose message is gone.
            Due::SinceAdded => Some(writing.now),
            Due::At(due) | Due::WithoutBroker(due) => Some(due),
        };
        let changed = sqlx::query(writing.statements.change.of(side))
            .bind(lease.id)
            .bind(lease.epoch)
            .bind(self.status)
            .bind(self.counted)
            .bind(self.due == Due::SinceAdded)
            .bind(due)
            .bind(self.held.then_some(&*writing.owner.node))
            .bind(self.reason)
            .bind(self.error.as_deref())
            .bind(self.expires)
            .fetch_optional(&mut *connection)
            .await?;
        let Some(row) = changed else { return Ok(false) };
        if self.counted {
            sqlx::query(writing.statements.record.of(side))
                .bind(lease.id)
                .bind(row.try_get::<i64, _>("attempts")?)
                .bind(writing.now)
                .bind(&*writing.owner.node)
                .bind(self.error.as_deref().unwrap_or_default())
                .bind(self.next)
                .execute(connection)
                .await?;
        }
        Ok(true)
    }
}
