//! Completes messages of both sides that leave nothing of their state rows, in one statement: under load nearly every batch of
//! outcomes is such a one. As it commits by itself it takes one round trip, where a transaction of two statements takes four.

use std::collections::HashSet;

use cap_adapter::storage::{RowCompletion, WriteBatch};
use cap_sql::templates::Templates;
use sqlx::{PgConnection, Row as _, SqlStr};

use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::completion::is_forgotten;

/// For both sides what `FORGET` of [`completion`](crate::write::completion) is for one.
const FORGET_BOTH: &str = "
WITH sent AS (
    DELETE FROM {schema}.outbox_state AS x
    USING unnest($1::bigint[], $2::integer[]) AS s(id, epoch)
    WHERE x.id = s.id AND x.epoch = s.epoch AND x.owner IS NOT NULL AND x.reruns = 0
    RETURNING x.id
), emptied_sent AS (
    UPDATE {schema}.outbox_state AS x
    SET status = 4, reruns = 0, due = NULL, expires = NULL, owner = NULL, reason = NULL, last_error = NULL
    FROM unnest($1::bigint[], $2::integer[]) AS s(id, epoch)
    WHERE x.id = s.id AND x.epoch = s.epoch AND x.owner IS NOT NULL AND x.reruns > 0
        AND (SELECT count(*) FROM sent) < cardinality($1::bigint[])
    RETURNING x.id
), handled AS (
    DELETE FROM {schema}.inbox_state AS x
    USING unnest($3::bigint[], $4::integer[]) AS s(id, epoch)
    WHERE x.id = s.id AND x.epoch = s.epoch AND x.owner IS NOT NULL AND x.reruns = 0
    RETURNING x.id
), emptied_handled AS (
    UPDATE {schema}.inbox_state AS x
    SET status = 4, reruns = 0, due = NULL, expires = NULL, owner = NULL, reason = NULL, last_error = NULL
    FROM unnest($3::bigint[], $4::integer[]) AS s(id, epoch)
    WHERE x.id = s.id AND x.epoch = s.epoch AND x.owner IS NOT NULL AND x.reruns > 0
        AND (SELECT count(*) FROM handled) < cardinality($3::bigint[])
    RETURNING x.id
)
SELECT ARRAY(SELECT id FROM sent UNION ALL SELECT id FROM emptied_sent) AS sent,
    ARRAY(SELECT id FROM handled UNION ALL SELECT id FROM emptied_handled) AS handled";

/// Completes messages of both sides.
#[derive(Debug)]
pub(crate) struct ForgetBoth {
    pub(crate) statement: SqlStr,
}

impl ForgetBoth {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { statement: templates.one(FORGET_BOTH) }
    }

    /// Whether a batch is of such outcomes only, on both sides, and has none of them twice.
    pub(crate) fn takes(batch: &WriteBatch) -> bool {
        batch.outgoing.is_empty()
            && batch.incoming.is_empty()
            && !batch.completed_outgoing.is_empty()
            && !batch.completed_incoming.is_empty()
            && all_forgotten(&batch.completed_outgoing)
            && all_forgotten(&batch.completed_incoming)
    }

    /// Applies the outcomes, and returns for each whether its lease held: of the outbox, then of the inbox.
    pub(crate) async fn complete(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        batch: &WriteBatch,
    ) -> Result<(Vec<bool>, Vec<bool>), Fault> {
        let (sent, sent_epochs) = leases(&batch.completed_outgoing);
        let (handled, handled_epochs) = leases(&batch.completed_incoming);
        let row = sqlx::query(self.statement.clone())
            .persistent(writing.prepared)
            .bind(sent)
            .bind(sent_epochs)
            .bind(handled)
            .bind(handled_epochs)
            .fetch_one(connection)
            .await?;
        let held = |row_completions: &[RowCompletion], ids: Vec<i64>| {
            let ids: HashSet<i64> = ids.into_iter().collect();
            row_completions.iter().map(|one| ids.contains(&one.lease.id)).collect()
        };
        Ok((
            held(&batch.completed_outgoing, row.try_get("sent")?),
            held(&batch.completed_incoming, row.try_get("handled")?),
        ))
    }
}

fn all_forgotten(row_completions: &[RowCompletion]) -> bool {
    let mut seen = HashSet::with_capacity(row_completions.len());
    row_completions
        .iter()
        .all(|one| is_forgotten(&one.outcome) && one.publishes.is_empty() && seen.insert(one.lease.id))
}

/// The ids and epochs, in the order of the ids, in which all writers take their locks.
fn leases(row_completions: &[RowCompletion]) -> (Vec<i64>, Vec<i32>) {
    let mut leases: Vec<(i64, i32)> =
        row_completions.iter().map(|one| (one.lease.id, one.lease.epoch)).collect();
    leases.sort_unstable();
    leases.into_iter().unzip()
}
