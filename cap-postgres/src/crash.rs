//! Suspects: the marks before their handlers start, and crashes that were counted wrongly.

use std::collections::HashSet;

use cap_adapter::storage::{Lease, StartMark};
use sqlx::{PgConnection, Row as _};

use crate::error::Fault;
use crate::statements::Statements;

// Rows are locked in the order of their ids, in which they are given.
pub(crate) const MARK_STARTED: &str = "
UPDATE {schema}.inbox_state AS x SET started_epoch = x.epoch, started_alone = m.alone
FROM unnest($1::bigint[], $2::integer[], $3::boolean[]) AS m(id, epoch, alone)
WHERE x.id = m.id AND x.epoch = m.epoch AND x.owner IS NOT NULL
RETURNING x.id, x.epoch";

pub(crate) const WITHDRAW_CRASHES: &str = "
WITH gone AS (
    DELETE FROM {schema}.attempts AS a
    USING unnest($1::bigint[], $2::integer[]) AS w(id, epoch)
    WHERE a.side = 1 AND a.id = w.id AND a.crash_epoch = w.epoch
    RETURNING a.id
)
UPDATE {schema}.inbox_state AS x SET crashes = greatest(x.crashes - 1, 0)
FROM gone AS g
WHERE x.id = g.id";

/// Notes that handlers start, and says whose lease is still held.
pub(crate) async fn mark_started(
    connection: &mut PgConnection,
    statements: &Statements,
    marks: &[StartMark],
) -> Result<Vec<bool>, Fault> {
    let mut ordered = marks.to_vec();
    ordered.sort_by_key(|mark| mark.lease.id);
    let rows = sqlx::query(statements.mark_started.clone())
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

/// Takes back crashes of processes that live.
pub(crate) async fn withdraw_crashes(
    connection: &mut PgConnection,
    statements: &Statements,
    leases: &[Lease],
) -> Result<(), Fault> {
    let mut ordered = leases.to_vec();
    ordered.sort_by_key(|lease| lease.id);
    sqlx::query(statements.withdraw_crashes.clone())
        .bind(ordered.iter().map(|lease| lease.id).collect::<Vec<_>>())
        .bind(ordered.iter().map(|lease| lease.epoch).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}
