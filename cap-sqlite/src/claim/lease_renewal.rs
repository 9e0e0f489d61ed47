//! Renews leases.

use cap_adapter::storage::{Lease, Owner, Side};
use cap_sql::columns::micros;
use cap_sql::templates::{Sides, Templates};
use sqlx::SqliteConnection;

use crate::connections::session::begin;
use crate::database::error::Fault;

const RENEW: &str = "UPDATE {states} SET due = ?3 WHERE id = ?1 AND epoch = ?2 AND owner IS NOT NULL";

/// Renews leases.
#[derive(Debug)]
pub(crate) struct LeaseRenewal {
    pub(crate) renew: Sides,
}

impl LeaseRenewal {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { renew: templates.sides(RENEW) }
    }

    /// Renews leases, and returns for each whether it still holds.
    pub(crate) async fn renew(
        &self,
        connection: &mut SqliteConnection,
        owner: &Owner,
        side: Side,
        leases: &[Lease],
    ) -> Result<Vec<bool>, Fault> {
        let (mut transaction, now) = begin(connection).await?;
        let mut held = Vec::with_capacity(leases.len());
        for lease in leases {
            let renew = sqlx::query(self.renew.of(side))
                .bind(lease.id)
                .bind(lease.epoch)
                .bind(now + micros(owner.lease));
            held.push(renew.execute(&mut *transaction).await?.rows_affected() > 0);
        }
        transaction.commit().await?;
        Ok(held)
    }
}
