//! Reads for how long the oldest waiting messages have been due.

use cap_adapter::monitor::Lag;
use cap_adapter::storage::Side;
use cap_sql::columns::span_of;
use cap_sql::templates::{Sides, Templates};
use sqlx::{Row as _, SqliteConnection};

use crate::connections::session::now;
use crate::database::error::Fault;

// The versions, and the groups of each, are found one after the other in the index, and the first due row of each is the
// oldest.

const OUTBOX: &str = "
WITH RECURSIVE versions(version) AS (
    SELECT (
        SELECT s.version FROM {prefix}outbox_state AS s INDEXED BY {prefix}outbox_state_due
        WHERE s.due IS NOT NULL ORDER BY s.version LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT s.version FROM {prefix}outbox_state AS s INDEXED BY {prefix}outbox_state_due
        WHERE s.due IS NOT NULL AND s.version > v.version ORDER BY s.version LIMIT 1
    )
    FROM versions AS v WHERE v.version IS NOT NULL
)
SELECT '' AS group_name, min((
    SELECT s.due FROM {prefix}outbox_state AS s INDEXED BY {prefix}outbox_state_due
    WHERE s.version = v.version AND s.due IS NOT NULL ORDER BY s.due LIMIT 1
)) AS due
FROM versions AS v WHERE v.version IS NOT NULL";

const INBOX: &str = "
WITH RECURSIVE versions(version) AS (
    SELECT (
        SELECT s.version FROM {prefix}inbox_state AS s INDEXED BY {prefix}inbox_state_due
        WHERE s.due IS NOT NULL ORDER BY s.version LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT s.version FROM {prefix}inbox_state AS s INDEXED BY {prefix}inbox_state_due
        WHERE s.due IS NOT NULL AND s.version > v.version ORDER BY s.version LIMIT 1
    )
    FROM versions AS v WHERE v.version IS NOT NULL
), groups(version, group_name) AS (
    SELECT v.version, (
        SELECT s.group_name FROM {prefix}inbox_state AS s INDEXED BY {prefix}inbox_state_due
        WHERE s.version = v.version AND s.due IS NOT NULL ORDER BY s.group_name LIMIT 1
    )
    FROM versions AS v WHERE v.version IS NOT NULL
    UNION ALL
    SELECT g.version, (
        SELECT s.group_name FROM {prefix}inbox_state AS s INDEXED BY {prefix}inbox_state_due
        WHERE s.version = g.version AND s.due IS NOT NULL AND s.group_name > g.group_name
        ORDER BY s.group_name LIMIT 1
    )
    FROM groups AS g WHERE g.group_name IS NOT NULL
)
SELECT g.group_name, min((
    SELECT s.due FROM {prefix}inbox_state AS s INDEXED BY {prefix}inbox_state_due
    WHERE s.version = g.version AND s.group_name = g.group_name AND s.due IS NOT NULL ORDER BY s.due LIMIT 1
)) AS due
FROM groups AS g WHERE g.group_name IS NOT NULL
GROUP BY g.group_name";

/// Reads the lag of the outbox and of each group.
#[derive(Debug)]
pub(crate) struct Lags {
    pub(crate) oldest: Sides,
}

impl Lags {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { oldest: Sides { outbox: templates.one(OUTBOX), inbox: templates.one(INBOX) } }
    }

    pub(crate) async fn read(&self, connection: &mut SqliteConnection) -> Result<Vec<Lag>, Fault> {
        let mut lags = Vec::new();
        for side in [Side::Outbox, Side::Inbox] {
            let rows = sqlx::query(self.oldest.of(side)).fetch_all(&mut *connection).await?;
            let now = now();
            for row in rows {
                // Nothing at all is due if it is null.
                let due = row.try_get::<Option<i64>, _>("due")?;
                if let Some(due) = due.filter(|due| *due <= now) {
                    lags.push(Lag::new(side, row.try_get::<String, _>("group_name")?, span_of(now - due)));
                }
            }
        }
        Ok(lags)
    }
}
