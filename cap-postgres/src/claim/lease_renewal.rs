//! Renews leases.

use std::collections::HashSet;

use cap_adapter::storage::{Lease, Owner, Side};
use cap_sql::columns::micros;
use cap_sql::templates::{Sides, Templates};
use sqlx::{PgConnection, Row as _};

use crate::database::error::Fault;

// It waits for no lock: one row that is locked for long must not cost all the others their leases. Whoever has locked it is about
// to write its outcome, which most often is this node itself; until then it counts as leased.
const RENEW: &str = "
WITH free AS MATERIALIZED (
    SELECT x.id FROM unnest($1::bigint[], $2::integer[]) AS s(id, epoch)
    JOIN {states} AS x ON x.id = s.id AND x.epoch = s.epoch AND x.owner IS NOT NULL
    FOR NO KEY UPDATE OF x SKIP LOCKED
), renewed AS (
    UPDATE {states} AS x SET due = statement_timestamp() + $3::bigint * interval '1 microsecond'
    FROM free AS f WHERE x.id = f.id
)
SELECT coalesce(array_agg(x.id), '{}') AS ids, coalesce(array_agg(x.epoch), '{}') AS epochs
FROM unnest($1::bigint[], $2::integer[]) AS s(id, epoch)
JOIN {states} AS x ON x.id = s.id AND x.epoch = s.epoch AND x.owner IS NOT NULL";

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
        connection: &mut PgConnection,
        owner: &Owner,
        side: Side,
        leases: &[Lease],
    ) -> Result<Vec<bool>, Fault> {
        let mut ordered = leases.to_vec();
        ordered.sort_by_key(|lease| lease.id);
        let row = sqlx::query(self.renew.of(side))
            .bind(ordered.iter().map(|lease| lease.id).collect::<Vec<_>>())
            .bind(ordered.iter().map(|lease| lease.epoch).collect::<Vec<_>>())
            .bind(micros(owner.lease))
            .fetch_one(connection)
            .await?;
        let ids: Vec<i64> = row.try_get("ids")?;
        let epochs: Vec<i32> = row.try_get("epochs")?;
        let held: HashSet<(i64, i32)> = ids.into_iter().zip(epochs).collect();
        Ok(leases.iter().map(|lease| held.contains(&(lease.id, lease.epoch))).collect())
    }
}
