//! Notes the starts of suspects' handlers, and takes back crashes that were counted wrongly.

use std::collections::HashSet;

use cap_adapter::storage::{Lease, StartMark};
use cap_sql::templates::Templates;
use sqlx::{PgConnection, Row as _, SqlStr};

use crate::database::error::Fault;

// Rows are locked in the order of their ids, in which they are given.
const MARK_STARTED: &str = "
UPDATE {schema}.inbox_state AS x SET started_epoch = x.epoch, started_alone = m.alone
FROM unnest($1::bigint[], $2::integer[], $3::boolean[]) AS m(id, epoch, alone)
WHERE x.id = m.id AND x.epoch = m.epoch AND x.owner IS NOT NULL
RETURNING x.id, x.epoch";

const WITHDRAW_CRASHES: &str = "
WITH gone AS (
    DELETE FROM {schema}.attempts AS a
    USING unnest($1::bigint[], $2::integer[]) AS w(id, epoch)
    WHERE a.side = 1 AND a.id = w.id AND a.crash_epoch = w.epoch
    RETURNING a.id
)
UPDATE {schema}.inbox_state AS x SET crashes = greatest(x.crashes - 1, 0)
FROM gone AS g
WHERE x.id = g.id";

/// Notes starts, and takes back crashes.
#[derive(Debug)]
pub(crate) struct CrashMarks {
    pub(crate) mark_started: SqlStr,
    pub(crate) withdraw_crashes: SqlStr,
}

impl CrashMarks {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { mark_started: templates.one(MARK_STARTED), withdraw_crashes: templates.one(WITHDRAW_CRASHES) }
    }

    /// Notes that handlers start, and returns for each whether its lease still holds.
    pub(crate) async fn mark_started(
        &self,
        connection: &mut PgConnection,
        marks: &[StartMark],
    ) -> Result<Vec<bool>, Fault> {
        let mut ordered = marks.to_vec();
        ordered.sort_by_key(|mark| mark.lease.id);
        let rows = sqlx::query(self.mark_started.clone())
            .bind(ordered.iter().map(|mark| mark.lease.id).collect::<Vec<_>>())
            .bind(ordered.iter().map(|mark| mark.lease.epoch).collect::<Vec<_>>())
            .bind(ordered.iter().map(|mark| mark.alone).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
        let mut held = HashSet::with_capacity(rows.len());
        for row in &rows {
            held.insert(Lease { id: row.try_get("id")?, epoch: row.try_get("epoch")? });
        }
        Ok(marks.iter().map(|mark| held.contains(&mark.lease)).collect())
    }

    /// Takes back crashes that were counted for live processes.
    pub(crate) async fn withdraw_crashes(
        &self,
        connection: &mut PgConnection,
        leases: &[Lease],
    ) -> Result<(), Fault> {
        let mut ordered = leases.to_vec();
        ordered.sort_by_key(|lease| lease.id);
        sqlx::query(self.withdraw_crashes.clone())
            .bind(ordered.iter().map(|lease| lease.id).collect::<Vec<_>>())
            .bind(ordered.iter().map(|lease| lease.epoch).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }
}
