//! Reads for how long the oldest waiting messages have been due.

use cap_adapter::monitor::Lag;
use cap_adapter::storage::Side;
use cap_sql::columns::span_of;
use cap_sql::templates::{Sides, Templates};
use sqlx::{PgConnection, Row as _};

use crate::database::error::Fault;

// The versions, and the groups, are found one after the other in the index, and the first due row of each is the oldest.

const OUTBOX: &str = "
WITH RECURSIVE versions AS (
    (SELECT s.version FROM {schema}.outbox_state AS s WHERE s.due IS NOT NULL ORDER BY s.version LIMIT 1)
    UNION ALL
    SELECT (
        SELECT s.version FROM {schema}.outbox_state AS s
        WHERE s.due IS NOT NULL AND s.version > v.version ORDER BY s.version LIMIT 1
    )
    FROM versions AS v WHERE v.version IS NOT NULL
)
SELECT ''::text AS group_name,
    (extract(epoch FROM statement_timestamp() - min(d.due)) * 1000000)::bigint AS oldest
FROM versions AS v
CROSS JOIN LATERAL (
    SELECT s.due FROM {schema}.outbox_state AS s
    WHERE s.version = v.version AND s.due <= statement_timestamp()
    ORDER BY s.due
    LIMIT 1
) AS d
HAVING count(*) > 0";

const INBOX: &str = "
WITH RECURSIVE groups AS (
    (SELECT s.group_name FROM {schema}.inbox_state AS s WHERE s.due IS NOT NULL ORDER BY s.group_name LIMIT 1)
    UNION ALL
    SELECT (
        SELECT s.group_name FROM {schema}.inbox_state AS s
        WHERE s.due IS NOT NULL AND s.group_name > g.group_name ORDER BY s.group_name LIMIT 1
    )
    FROM groups AS g WHERE g.group_name IS NOT NULL
)
SELECT g.group_name::text AS group_name,
    (extract(epoch FROM statement_timestamp() - d.due) * 1000000)::bigint AS oldest
FROM groups AS g
CROSS JOIN LATERAL (
    SELECT s.due FROM {schema}.inbox_state AS s
    WHERE s.group_name = g.group_name AND s.due <= statement_timestamp()
    ORDER BY s.due
    LIMIT 1
) AS d";

/// Reads the lag of the outbox and of each group.
#[derive(Debug)]
pub(crate) struct Lags {
    pub(crate) oldest: Sides,
}

impl Lags {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { oldest: Sides { outbox: templates.one(OUTBOX), inbox: templates.one(INBOX) } }
    }

    pub(crate) async fn read(&self, connection: &mut PgConnection) -> Result<Vec<Lag>, Fault> {
        let mut lags = Vec::new();
        for side in [Side::Outbox, Side::Inbox] {
            for row in sqlx::query(self.oldest.of(side)).fetch_all(&mut *connection).await? {
                let oldest = span_of(row.try_get("oldest")?);
                lags.push(Lag::new(side, row.try_get::<String, _>("group_name")?, oldest));
            }
        }
        Ok(lags)
    }
}
