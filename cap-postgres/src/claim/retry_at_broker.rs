//! Claims rows whose retry the broker has kept and now delivered.

use std::collections::HashMap;

use cap_adapter::storage::{Claimed, Lease, Side};
use cap_sql::checks::check_owner;
use cap_sql::columns::micros;
use cap_sql::templates::Templates;
use sqlx::{PgConnection, SqlStr};

use crate::claim::claimed_rows::ClaimedRows;
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::completion::Completion;

// Whoever comes second finds the epoch changed when the first has let the row go. Rows are locked in the order of their
// ids, in which they are given.
const CLAIM: &str = "
WITH taken AS (
    UPDATE {schema}.inbox_state AS s SET
        owner = $2,
        due = statement_timestamp() + $3::bigint * interval '1 microsecond',
        epoch = s.epoch + 1
    FROM unnest($4::bigint[], $5::integer[]) AS w(id, epoch)
    WHERE s.id = w.id AND s.epoch = w.epoch AND s.status = 2 AND s.owner IS NULL AND s.version = $1
    RETURNING s.id, s.epoch, s.status, s.attempts, s.attempts_before_rerun, s.reruns, s.reason, s.last_error,
        s.crashes
)
SELECT t.id, t.epoch, t.status, t.attempts, t.attempts_before_rerun, t.reruns, t.reason, t.last_error,
    t.crashes, false AS suspect, false AS started_before, NULL::text AS crashed,
    m.group_name, m.headers, m.body,
    (extract(epoch FROM statement_timestamp() - m.added) * 1000000)::bigint AS age
FROM taken AS t
LEFT JOIN {schema}.inbox AS m ON m.id = t.id";

/// Claims rows that wait for the broker.
#[derive(Debug)]
pub(crate) struct RetryAtBroker {
    pub(crate) claim: SqlStr,
    rows: ClaimedRows,
}

impl RetryAtBroker {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { claim: templates.one(CLAIM), rows: ClaimedRows::prepare(templates) }
    }

    /// Claims those of the rows that still wait. `completion` writes the outcome of those that cannot be read.
    pub(crate) async fn claim(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        completion: &Completion,
        leases: &[Lease],
    ) -> Result<Vec<Option<Claimed>>, Fault> {
        let owner = writing.owner;
        check_owner(owner)?;
        let mut ordered = leases.to_vec();
        ordered.sort_by_key(|lease| lease.id);
        let rows = sqlx::query(self.claim.clone())
            .bind(&*owner.version)
            .bind(&*owner.node)
            .bind(micros(owner.lease))
            .bind(ordered.iter().map(|lease| lease.id).collect::<Vec<_>>())
            .bind(ordered.iter().map(|lease| lease.epoch).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        let claimed = self.rows.read(connection, writing, completion, Side::Inbox, rows).await?;
        let mut claimed: HashMap<(i64, i32), Claimed> =
            claimed.into_iter().map(|row| ((row.lease.id, row.lease.epoch - 1), row)).collect();
        Ok(leases.iter().map(|lease| claimed.remove(&(lease.id, lease.epoch))).collect())
    }
}
