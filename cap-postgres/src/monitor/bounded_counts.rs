//! Counts messages for a health probe, at a cost that does not grow with the number of rows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cap_adapter::error::StorageError;
use cap_adapter::monitor::BoundedCounts;
use cap_adapter::storage::Side;
use cap_sql::templates::{Sides, Templates};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::{Instant, timeout_at};

use crate::connections::server::{Purpose, Server};
use crate::connections::session::Session;
use crate::database::error::Fault;
use crate::monitor::counts::counts_of;

// Exact while there are no more rows than the limit, which most often is the case. One more than that is looked at, to
// know it.
const FEW: &str = "
SELECT {side} AS side, {few_group} AS group_name, x.status, count(*) FILTER (
    WHERE (x.status <> 4 OR x.reason IS NOT NULL OR x.expires IS NOT NULL) AND x.reason IS DISTINCT FROM 'cancelled'
) AS count, count(*) AS seen
FROM (SELECT s.* FROM {states} AS s ORDER BY s.id LIMIT $1::bigint + 1) AS x
GROUP BY 2, x.status";

// Otherwise by what they wait for: rows that are due at some time, for each group by itself, so that a group with
// millions hides no other; and rows that are kept for operators, with those that stay the longest first, which are the
// failed ones. The groups are found one after the other in the index.
const MANY_INBOX: &str = "
WITH RECURSIVE groups AS (
    (SELECT s.group_name FROM {schema}.inbox_state AS s WHERE s.due IS NOT NULL ORDER BY s.group_name LIMIT 1)
    UNION ALL
    SELECT (
        SELECT s.group_name FROM {schema}.inbox_state AS s
        WHERE s.due IS NOT NULL AND s.group_name > g.group_name ORDER BY s.group_name LIMIT 1
    )
    FROM groups AS g WHERE g.group_name IS NOT NULL
), rows AS (
    SELECT g.group_name, d.status
    FROM (SELECT g.group_name FROM groups AS g WHERE g.group_name IS NOT NULL LIMIT 100) AS g
    CROSS JOIN LATERAL (
        SELECT s.status FROM {schema}.inbox_state AS s
        WHERE s.group_name = g.group_name AND s.due IS NOT NULL
        LIMIT $1
    ) AS d
    UNION ALL
    SELECT k.group_name, k.status
    FROM (
        SELECT s.group_name, s.status, s.reason, s.due FROM {schema}.inbox_state AS s
        WHERE s.expires IS NOT NULL ORDER BY s.expires DESC LIMIT $1
    ) AS k
    WHERE k.due IS NULL AND k.reason IS DISTINCT FROM 'cancelled'
)
SELECT 1 AS side, r.group_name, r.status, count(*) AS count FROM rows AS r GROUP BY r.group_name, r.status";

const MANY_OUTBOX: &str = "
WITH rows AS (
    SELECT d.status
    FROM (SELECT s.status FROM {schema}.outbox_state AS s WHERE s.due IS NOT NULL LIMIT $1) AS d
    UNION ALL
    SELECT k.status
    FROM (
        SELECT s.status, s.reason, s.due FROM {schema}.outbox_state AS s
        WHERE s.expires IS NOT NULL ORDER BY s.expires DESC LIMIT $1
    ) AS k
    WHERE k.due IS NULL AND k.reason IS DISTINCT FROM 'cancelled'
)
SELECT 0 AS side, ''::text AS group_name, r.status, count(*) AS count FROM rows AS r GROUP BY r.status";

/// How long the server may take to begin a transaction, and the count to come.
const LIMIT: Duration = Duration::from_secs(2);

/// The server ends a count that takes longer.
const AT_THE_SERVER: &str = "SET LOCAL statement_timeout = '1s'";

/// Counts no more rows than a limit.
#[derive(Debug)]
pub(crate) struct BoundedCounting {
    /// While there are few rows.
    pub(crate) few: Sides,
    /// When there are many.
    pub(crate) many: Sides,
}

impl BoundedCounting {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        let many = Sides { outbox: templates.one(MANY_OUTBOX), inbox: templates.one(MANY_INBOX) };
        Self { few: templates.sides(FEW), many }
    }

    /// Counts on a connection of its own, so that it waits neither for the bus nor for operators' long lists. A server that
    /// does not even begin a transaction is an error; one that begins it and is slow to count is not.
    pub(crate) async fn count(
        &self,
        server: &Server,
        limit: u32,
    ) -> Result<Option<BoundedCounts>, StorageError> {
        let begun = AtomicBool::new(false);
        let counting = async {
            let mut session = Session::open(server, Purpose::Health, "counting messages for health").await?;
            session.run(|connection| self.count_within(connection, limit, &begun)).await
        };
        // Should the time be over, the session is dropped in the middle, which closes its connection; the server ends the
        // count by its own time limit.
        match timeout_at(Instant::now() + LIMIT, counting).await {
            Ok(counted) => counted,
            Err(_) if begun.load(Ordering::Relaxed) => Ok(None),
            Err(_) => {
                Err(Fault::no_answer(LIMIT).into_error("asking the server for health", server.target()))
            }
        }
    }

    async fn count_within(
        &self,
        connection: &mut PgConnection,
        limit: u32,
        begun: &AtomicBool,
    ) -> Result<Option<BoundedCounts>, Fault> {
        let mut transaction = connection.begin().await?;
        sqlx::query(AT_THE_SERVER).execute(&mut *transaction).await?;
        begun.store(true, Ordering::Relaxed);
        let counted = self.count_both(&mut transaction, limit).await;
        transaction.rollback().await?;
        match counted {
            Err(fault) if fault.is_cancelled() => Ok(None),
            counted => counted.map(Some),
        }
    }

    async fn count_both(&self, connection: &mut PgConnection, limit: u32) -> Result<BoundedCounts, Fault> {
        let limit = i64::from(limit);
        let mut counted = BoundedCounts::default();
        for side in [Side::Outbox, Side::Inbox] {
            let mut rows = sqlx::query(self.few.of(side)).bind(limit).fetch_all(&mut *connection).await?;
            let mut seen = 0;
            for row in &rows {
                seen += row.try_get::<i64, _>("seen")?;
            }
            if seen > limit {
                counted.is_capped = true;
                rows = sqlx::query(self.many.of(side)).bind(limit).fetch_all(&mut *connection).await?;
            }
            counted.counts.extend(counts_of(&rows)?.into_iter().filter(|count| count.count > 0));
        }
        Ok(counted)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use cap_adapter::storage::Side::{Inbox, Outbox};
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::connections::source::Source;
    use crate::database::schema_name::SchemaName;
    use crate::schema::creation::initialize;
    use crate::schema::ownership::Trust;
    use crate::test_pool::pool;

    const FILL: &str = "
    INSERT INTO {schema}.outbox_state (id, version, status, due)
        SELECT g, 'v1', 0, now() FROM generate_series(1, 5000) AS g;
    INSERT INTO {schema}.inbox_state (id, version, group_name, status, due)
        SELECT g, 'v1', 'g' || g % 2, 0, now() FROM generate_series(1, 10000) AS g;
    INSERT INTO {schema}.inbox_state (id, version, group_name, status, expires)
        SELECT g, 'v1', 'g0', 3, now() FROM generate_series(10001, 15000) AS g";

    /// Issue 8, row 5: no step of a count goes through more rows than it may, at each of the two groups.
    #[tokio::test]
    async fn no_step_of_a_count_sees_more_than_its_limit() {
        let name = SchemaName::new(&format!("cap_probe_{:016x}", fastrand::u64(..)));
        // Nothing is committed, and so nothing left behind.
        let source = Source { application: pool(), direct: None, provider: None };
        let mut connection = source.connect().await.map_err(|fault| format!("{fault:?}")).unwrap();
        let mut transaction = connection.begin().await.unwrap();
        initialize(&mut transaction, &name, &Trust::default())
            .await
            .map_err(|fault| format!("{fault:?}"))
            .unwrap();
        sqlx::raw_sql(AssertSqlSafe(FILL.replace("{schema}", name.quoted())))
            .execute(&mut *transaction)
            .await
            .unwrap();
        let counting = BoundedCounting::prepare(&name.templates());
        for sides in [&counting.few, &counting.many] {
            for side in [Outbox, Inbox] {
                let explain = format!("EXPLAIN (ANALYZE, TIMING OFF) {}", sides.of(side).as_str());
                let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
                    .bind(100_i64)
                    .fetch_all(&mut *transaction)
                    .await
                    .unwrap();
                let plan = lines.join("\n");
                let mut scans = 0;
                for line in
                    lines.iter().filter(|line| line.contains("Index") && line.contains("actual rows="))
                {
                    let rows = line.split("actual rows=").nth(1).unwrap().split([' ', '.']).next().unwrap();
                    assert!(rows.parse::<u32>().unwrap() <= 101, "{line} of\n{plan}");
                    scans += 1;
                }
                let removed =
                    lines.iter().filter_map(|line| line.trim().strip_prefix("Rows Removed by Filter: "));
                assert!(
                    scans > 0 && removed.into_iter().all(|rows| rows.parse::<u32>().unwrap() <= 101),
                    "{plan}"
                );
            }
        }
        let counted = counting.count_both(&mut transaction, 100).await.map_err(|f| format!("{f:?}")).unwrap();
        assert!(counted.is_capped);
        let mut found: Vec<_> = counted
            .counts
            .iter()
            .map(|count| format!("{:?} {} {:?} {}", count.side, count.group, count.status, count.count))
            .collect();
        found.sort_unstable();
        let expected = [
            "Inbox g0 Failed 100",
            "Inbox g0 Scheduled 100",
            "Inbox g1 Scheduled 100",
            "Outbox  Scheduled 100",
        ];
        assert_eq!(found, expected, "a group hides no other");
    }
}
