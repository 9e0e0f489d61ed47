//! Claims rows whose retry the broker has kept and now delivered.

use cap_adapter::storage::{Claimed, Lease, Owner, Side};
use cap_sql::checks::check_owner;
use cap_sql::templates::Templates;
use sqlx::{SqlStr, SqliteConnection};

use crate::claim::claim_row::ClaimRow;
use crate::connections::session::begin;
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::completion::Completion;

const WAITING: &str = "
SELECT id, epoch, status, attempts, attempts_before_rerun, reason, last_error,
    owner, crashes, started_epoch, started_alone
FROM {prefix}inbox_state
WHERE id = ?1 AND epoch = ?2 AND status = 2 AND owner IS NULL AND version = ?3";

/// Claims rows that wait for the broker.
#[derive(Debug)]
pub(crate) struct RetryAtBroker {
    pub(crate) waiting: SqlStr,
    row: ClaimRow,
}

impl RetryAtBroker {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { waiting: templates.one(WAITING), row: ClaimRow::prepare(templates) }
    }

    /// Claims those of the rows that still wait. `completion` writes the outcome of those that cannot be read.
    pub(crate) async fn claim(
        &self,
        connection: &mut SqliteConnection,
        owner: &Owner,
        completion: &Completion,
        leases: &[Lease],
    ) -> Result<Vec<Option<Claimed>>, Fault> {
        check_owner(owner)?;
        let (mut transaction, now) = begin(connection).await?;
        let writing = Writing { owner, now };
        let mut rows = Vec::with_capacity(leases.len());
        for lease in leases {
            let state = sqlx::query(self.waiting.clone())
                .bind(lease.id)
                .bind(lease.epoch)
                .bind(&*owner.version)
                .fetch_optional(&mut *transaction)
                .await?;
            rows.push(match state {
                Some(state) => {
                    self.row.claim(&mut transaction, writing, completion, Side::Inbox, &state).await?
                }
                None => None,
            });
        }
        transaction.commit().await?;
        Ok(rows)
    }
}
