//! Counts messages by side, group and status.

use cap_adapter::monitor::{BoundedCounts, Count};
use cap_adapter::storage::Side;
use cap_sql::columns::counted;
use cap_sql::templates::{Sides, Templates};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqlStr, SqliteConnection};

use crate::database::error::Fault;

/// As the next but one, of no more rows than a limit and one, which shows whether there are more.
const COUNT_FEW: &str = "
SELECT {side} AS side, {few_group} AS group_name, x.status, count(*) FILTER (
    WHERE (x.status <> 4 OR x.reason IS NOT NULL OR x.expires IS NOT NULL) AND x.reason IS NOT 'cancelled'
) AS count, count(*) AS seen
FROM (SELECT s.* FROM {states} AS s ORDER BY s.id LIMIT ?1 + 1) AS x
GROUP BY 2, x.status";

/// Where there are more: as many as the limit that are due at some time, and as many that are kept for operators, those that stay the
/// longest first, which are the failed ones.
const COUNT_MANY: &str = "
SELECT {side} AS side, x.group_name, x.status, count(*) AS count FROM (
    SELECT * FROM (SELECT {few_group} AS group_name, x.status FROM {states} AS x WHERE x.due IS NOT NULL LIMIT ?1)
    UNION ALL
    SELECT k.group_name, k.status FROM (
        SELECT {few_group} AS group_name, x.status, x.reason, x.due FROM {states} AS x
        WHERE x.expires IS NOT NULL ORDER BY x.expires DESC LIMIT ?1
    ) AS k
    WHERE k.due IS NULL AND k.reason IS NOT 'cancelled'
) AS x
GROUP BY x.group_name, x.status";

// A row that only keeps its epoch is not counted, nor one that was cancelled.
const COUNTS: &str = "
SELECT 0 AS side, '' AS group_name, status, count(*) AS count FROM {prefix}outbox_state
WHERE (status <> 4 OR reason IS NOT NULL OR expires IS NOT NULL) AND reason IS NOT 'cancelled'
GROUP BY status
UNION ALL
SELECT 1, group_name, status, count(*) FROM {prefix}inbox_state
WHERE (status <> 4 OR reason IS NOT NULL OR expires IS NOT NULL) AND reason IS NOT 'cancelled'
GROUP BY group_name, status";

/// Counts messages.
#[derive(Debug)]
pub(crate) struct Counts {
    all: SqlStr,
    /// Counts while there are few rows.
    few: Sides,
    /// Counts when there are many.
    many: Sides,
}

impl Counts {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            all: templates.one(COUNTS),
            few: templates.sides(COUNT_FEW),
            many: templates.sides(COUNT_MANY),
        }
    }

    pub(crate) async fn count(&self, connection: &mut SqliteConnection) -> Result<Vec<Count>, Fault> {
        counts_of(&sqlx::query(self.all.clone()).fetch_all(connection).await?)
    }

    /// Counts no more rows than a limit.
    pub(crate) async fn count_bounded(
        &self,
        connection: &mut SqliteConnection,
        limit: u32,
    ) -> Result<BoundedCounts, Fault> {
        let mut counted = BoundedCounts::default();
        for side in [Side::Outbox, Side::Inbox] {
            let mut rows = sqlx::query(self.few.of(side)).bind(limit).fetch_all(&mut *connection).await?;
            let mut seen = 0;
            for row in &rows {
                seen += row.try_get::<i64, _>("seen")?;
            }
            if seen > i64::from(limit) {
                counted.is_capped = true;
                rows = sqlx::query(self.many.of(side)).bind(limit).fetch_all(&mut *connection).await?;
            }
            counted.counts.extend(counts_of(&rows)?.into_iter().filter(|count| count.count > 0));
        }
        Ok(counted)
    }
}

/// Reads rows of the columns `side`, `group_name`, `status` and `count`.
fn counts_of(rows: &[SqliteRow]) -> Result<Vec<Count>, Fault> {
    let count = |row: &SqliteRow| {
        let group = row.try_get::<&str, _>("group_name")?;
        Ok(counted(row.try_get("side")?, group, row.try_get("status")?, row.try_get("count")?))
    };
    rows.iter().map(count).collect()
}
