//! Plain transactions of the application's: whether they have ended, and what they have left.

use cap_adapter::storage::{LookedFor, Side, TransactionId};
use sqlx::{PgConnection, Row as _};

use crate::columns::side_name;
use crate::error::Fault;
use crate::statements::Statements;

// Both are seen through one snapshot: of a transaction that had ended when it was taken, it shows all that there is. A
// number that a failover has taken back is open until the new primary has come to it.
pub(crate) const LOOK_FOR: &str = "
SELECT ARRAY(
    SELECT t.id FROM unnest($1::bigint[]) AS t(id)
    WHERE txid_visible_in_snapshot(t.id, (SELECT txid_current_snapshot()))
) AS ended, ARRAY(
    SELECT x.id FROM unnest($2::bigint[]) AS r(id) JOIN {schema}.outbox_state AS x ON x.id = r.id
    WHERE x.epoch = 1 AND x.owner IS NOT NULL
) AS stored";

/// See [`look_for`](cap_adapter::storage::Storage::look_for).
pub(crate) async fn look_for(
    connection: &mut PgConnection,
    statements: &Statements,
    transactions: &[TransactionId],
    rows: &[i64],
) -> Result<LookedFor, Fault> {
    let row = sqlx::query(statements.look_for.clone())
        .bind(transactions.iter().map(|transaction| transaction.0).collect::<Vec<_>>())
        .bind(rows)
        .fetch_one(connection)
        .await?;
    Ok(LookedFor {
        ended: row.try_get::<Vec<i64>, _>("ended")?.into_iter().map(TransactionId).collect(),
        stored: row.try_get::<Vec<i64>, _>("stored")?.into_iter().collect(),
    })
}

/// Has the other nodes look for work on a side.
pub(crate) async fn announce(connection: &mut PgConnection, channel: &str, side: Side) -> Result<(), Fault> {
    let notify = sqlx::query("SELECT pg_catalog.pg_notify($1, $2)");
    notify.bind(channel).bind(side_name(side)).execute(connection).await?;
    Ok(())
}
