//! Counts messages by side, group and status.

use cap_adapter::monitor::Count;
use cap_sql::columns::counted;
use cap_sql::templates::Templates;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _, SqlStr};

use crate::database::error::Fault;

// A row that only keeps its epoch is not counted, nor one that was cancelled.
const COUNTS: &str = "
SELECT 0 AS side, '' AS group_name, status, count(*) AS count FROM {schema}.outbox_state
WHERE (status <> 4 OR reason IS NOT NULL OR expires IS NOT NULL) AND reason IS DISTINCT FROM 'cancelled'
GROUP BY status
UNION ALL
SELECT 1, group_name, status, count(*) FROM {schema}.inbox_state
WHERE (status <> 4 OR reason IS NOT NULL OR expires IS NOT NULL) AND reason IS DISTINCT FROM 'cancelled'
GROUP BY group_name, status";

/// Counts messages.
#[derive(Debug)]
pub(crate) struct Counts {
    all: SqlStr,
}

impl Counts {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { all: templates.one(COUNTS) }
    }

    pub(crate) async fn count(&self, connection: &mut PgConnection) -> Result<Vec<Count>, Fault> {
        counts_of(&sqlx::query(self.all.clone()).fetch_all(connection).await?)
    }
}

/// Reads rows of the columns `side`, `group_name`, `status` and `count`.
pub(crate) fn counts_of(rows: &[PgRow]) -> Result<Vec<Count>, Fault> {
    let count = |row: &PgRow| {
        let side = i16::try_from(row.try_get::<i32, _>("side")?).unwrap_or(0);
        let group = row.try_get::<&str, _>("group_name")?;
        Ok(counted(side, group, row.try_get("status")?, row.try_get("count")?))
    };
    rows.iter().map(count).collect()
}
