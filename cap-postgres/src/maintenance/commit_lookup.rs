//! Looks which plain transactions of the application have ended, and which messages they have stored.

use cap_adapter::storage::{LookedFor, TransactionId};
use cap_sql::templates::Templates;
use sqlx::{PgConnection, Row as _, SqlStr};

use crate::database::error::Fault;

// Both are seen through one snapshot: of a transaction that had ended when it was taken, it shows all that there is. A
// number that a failover has taken back is open until the new primary has come to it.
const LOOK_FOR: &str = "
SELECT ARRAY(
    SELECT t.id FROM unnest($1::bigint[]) AS t(id)
    WHERE txid_visible_in_snapshot(t.id, (SELECT txid_current_snapshot()))
) AS ended, ARRAY(
    SELECT x.id FROM unnest($2::bigint[]) AS r(id) JOIN {schema}.outbox_state AS x ON x.id = r.id
    WHERE x.epoch = 1 AND x.owner IS NOT NULL
) AS stored";

/// Looks for the end of transactions.
#[derive(Debug)]
pub(crate) struct CommitLookup {
    pub(crate) look_for: SqlStr,
}

impl CommitLookup {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { look_for: templates.one(LOOK_FOR) }
    }

    /// See [`look_for`](cap_adapter::storage::Storage::look_for).
    pub(crate) async fn look_for(
        &self,
        connection: &mut PgConnection,
        transactions: &[TransactionId],
        rows: &[i64],
    ) -> Result<LookedFor, Fault> {
        let row = sqlx::query(self.look_for.clone())
            .bind(transactions.iter().map(|transaction| transaction.0).collect::<Vec<_>>())
            .bind(rows)
            .fetch_one(connection)
            .await?;
        Ok(LookedFor {
            ended: row.try_get::<Vec<i64>, _>("ended")?.into_iter().map(TransactionId).collect(),
            stored: row.try_get::<Vec<i64>, _>("stored")?.into_iter().collect(),
        })
    }
}
