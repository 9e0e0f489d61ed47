//! Notes the starts of suspects' handlers, counts crashes, and takes back those that were counted wrongly.

use std::sync::Arc;

use cap_adapter::storage::{Lease, StartMark, Suspect, crash_text};
use cap_sql::columns::{FAILED, count_of};
use cap_sql::templates::Templates;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqlStr, SqliteConnection};

use crate::connections::session::begin;
use crate::database::error::Fault;
use crate::database::writing::Writing;

const MARK_STARTED: &str = "
UPDATE {prefix}inbox_state SET started_epoch = epoch, started_alone = ?3
WHERE id = ?1 AND epoch = ?2 AND owner IS NOT NULL";

const COUNT: &str = "
UPDATE {prefix}inbox_state SET crashes = crashes + 1, last_error = ?2 WHERE id = ?1";

const RECORD: &str = "
INSERT INTO {prefix}attempts (side, id, number, at, node, error, next_due, crash_epoch)
VALUES (1, ?1, ?2, ?3, ?4, ?5, ?3, ?6)";

const WITHDRAW: &str = "
DELETE FROM {prefix}attempts INDEXED BY {prefix}attempts_of
WHERE side = 1 AND id = ?1 AND crash_epoch = ?2";

const UNCOUNT: &str = "
UPDATE {prefix}inbox_state SET crashes = max(crashes - 1, 0) WHERE id = ?1";

/// The crashes of a row of the inbox, and the process that had it before it is claimed.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) crashes: u32,
    pub(crate) suspect: Option<Suspect>,
}

impl Past {
    pub(crate) fn of(state: &SqliteRow) -> Result<Self, sqlx::Error> {
        let mut crashes = count_of(state.try_get("crashes")?);
        let owner = state.try_get::<Option<&str>, _>("owner")?;
        let owner = owner.filter(|_| !matches!(state.try_get::<i16, _>("status"), Ok(FAILED)));
        let started = state.try_get::<Option<i32>, _>("started_epoch")?;
        let alone = state.try_get::<Option<bool>, _>("started_alone")?.unwrap_or(false);
        let blamed = alone && started == Some(state.try_get("epoch")?);
        let suspect = owner.map(|owner| Suspect {
            started_before: started.is_some(),
            crashed: blamed.then(|| Arc::from(owner)),
        });
        if suspect.as_ref().is_some_and(|suspect| suspect.crashed.is_some()) {
            crashes = crashes.saturating_add(1);
        }
        Ok(Self { crashes, suspect })
    }
}

/// Counts and records crashes.
#[derive(Debug)]
pub(crate) struct CountCrash {
    pub(crate) count: SqlStr,
    pub(crate) record: SqlStr,
}

impl CountCrash {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { count: templates.one(COUNT), record: templates.one(RECORD) }
    }

    /// Counts and records the crash, if there was one, of a row that is being claimed.
    pub(crate) async fn record(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        past: &Past,
        state: &SqliteRow,
    ) -> Result<(), Fault> {
        let Some(node) = past.suspect.as_ref().and_then(|suspect| suspect.crashed.as_deref()) else {
            return Ok(());
        };
        let (id, epoch): (i64, i32) = (state.try_get("id")?, state.try_get("epoch")?);
        let error = crash_text(node);
        sqlx::query(self.count.clone()).bind(id).bind(&error).execute(&mut *connection).await?;
        sqlx::query(self.record.clone())
            .bind(id)
            .bind(state.try_get::<i64, _>("attempts")? + 1)
            .bind(writing.now)
            .bind(node)
            .bind(&error)
            .bind(epoch)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// Notes starts, and takes back crashes.
#[derive(Debug)]
pub(crate) struct CrashMarks {
    pub(crate) mark_started: SqlStr,
    pub(crate) withdraw: SqlStr,
    pub(crate) uncount: SqlStr,
}

impl CrashMarks {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            mark_started: templates.one(MARK_STARTED),
            withdraw: templates.one(WITHDRAW),
            uncount: templates.one(UNCOUNT),
        }
    }

    /// Notes that handlers start, and returns for each whether its lease still holds.
    pub(crate) async fn mark_started(
        &self,
        connection: &mut SqliteConnection,
        marks: &[StartMark],
    ) -> Result<Vec<bool>, Fault> {
        let (mut transaction, _) = begin(connection).await?;
        let mut held = Vec::with_capacity(marks.len());
        for mark in marks {
            let query = sqlx::query(self.mark_started.clone())
                .bind(mark.lease.id)
                .bind(mark.lease.epoch)
                .bind(mark.alone);
            held.push(query.execute(&mut *transaction).await?.rows_affected() > 0);
        }
        transaction.commit().await?;
        Ok(held)
    }

    /// Takes back crashes that were counted for live processes.
    pub(crate) async fn withdraw_crashes(
        &self,
        connection: &mut SqliteConnection,
        leases: &[Lease],
    ) -> Result<(), Fault> {
        let (mut transaction, _) = begin(connection).await?;
        for lease in leases {
            let gone = sqlx::query(self.withdraw.clone()).bind(lease.id).bind(lease.epoch);
            if gone.execute(&mut *transaction).await?.rows_affected() > 0 {
                sqlx::query(self.uncount.clone()).bind(lease.id).execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }
}
