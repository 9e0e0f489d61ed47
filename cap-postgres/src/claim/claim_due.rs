//! Claims rows that are due.

use std::time::Duration;

use cap_adapter::storage::{ClaimRequest, Claims, Side};
use cap_sql::checks::{check_owner, check_text};
use cap_sql::columns::{limit_of, micros, span_of};
use cap_sql::templates::{Sides, Templates};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use crate::claim::claimed_rows::ClaimedRows;
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::completion::Completion;

// One statement claims, reads the messages and looks for what is due next. It stops before the body that would exceed the
// requested bytes, unless that is the first one; lengths are known without reading bodies. Rows that another transaction
// has locked are skipped; they count as due next only while the limit, and not a lock, may have kept them back, or else
// in a moment, when the lock is gone. `statement_timestamp`, unlike `clock_timestamp`, can be looked up in an index.
//
// `NOT IN` is a hash of the few claimed ids here, made once.

const OUTBOX: &str = "
WITH due AS MATERIALIZED (
    SELECT s.id, s.due FROM {schema}.outbox_state AS s
    WHERE s.version = $1 AND s.due <= statement_timestamp()
    ORDER BY s.due, s.id
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), candidates AS MATERIALIZED (
    SELECT d.id, d.due FROM (
        SELECT d.id, d.due, octet_length(m.body) AS size, sum(octet_length(m.body)) OVER earlier AS before
        FROM due AS d LEFT JOIN {schema}.outbox AS m ON m.id = d.id
        WINDOW earlier AS (ORDER BY d.due, d.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ) AS d
    WHERE d.before IS NULL OR d.before + coalesce(d.size, 0) <= $5
), next AS (
    SELECT s.due FROM {schema}.outbox_state AS s
    WHERE s.version = $1 AND s.due IS NOT NULL AND s.id NOT IN (SELECT c.id FROM candidates AS c)
    ORDER BY s.due
    LIMIT 1
), taken AS (
    UPDATE {schema}.outbox_state AS s SET
        owner = $3,
        due = statement_timestamp() + $4::bigint * interval '1 microsecond',
        epoch = s.epoch + 1,
        status = CASE WHEN s.status = 1 THEN 0 ELSE s.status END
    FROM candidates AS c
    WHERE s.id = c.id
    RETURNING s.id, s.epoch, s.status, s.attempts, s.attempts_before_rerun, s.reruns, s.reason, s.last_error, c.due
)
SELECT t.id, t.epoch, t.status, t.attempts, t.attempts_before_rerun, t.reruns, t.reason, t.last_error,
    0 AS crashes, false AS suspect, false AS started_before, NULL::text AS crashed,
    '' AS group_name, m.headers, m.body,
    (extract(epoch FROM statement_timestamp() - m.added) * 1000000)::bigint AS age,
    (SELECT count(*) FROM due) AS due, (SELECT count(*) FROM candidates) AS claimed,
    (SELECT (extract(epoch FROM n.due - statement_timestamp()) * 1000000)::bigint FROM next AS n) AS next_due
FROM (SELECT) AS always
LEFT JOIN taken AS t ON true
LEFT JOIN {schema}.outbox AS m ON m.id = t.id
ORDER BY t.due, t.id";

const INBOX: &str = "
WITH due AS MATERIALIZED (
    SELECT c.* FROM unnest($6::text[]) AS g(name)
    CROSS JOIN LATERAL (
        SELECT s.id, s.due,
            s.owner IS NOT NULL AND s.status <> 3 AS suspect,
            s.started_epoch IS NOT NULL AS started_before,
            CASE
                WHEN s.status <> 3 AND s.started_alone AND s.started_epoch = s.epoch THEN s.owner
            END AS crashed
        FROM {schema}.inbox_state AS s
        WHERE s.group_name = g.name AND s.version = $1 AND s.due <= statement_timestamp()
        ORDER BY s.due, s.id
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) AS c
    ORDER BY c.due, c.id
    LIMIT $2
), candidates AS MATERIALIZED (
    SELECT d.* FROM (
        SELECT d.*, octet_length(m.body) AS size, sum(octet_length(m.body)) OVER earlier AS before
        FROM due AS d LEFT JOIN {schema}.inbox AS m ON m.id = d.id
        WINDOW earlier AS (ORDER BY d.due, d.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ) AS d
    WHERE d.before IS NULL OR d.before + coalesce(d.size, 0) <= $5
), next AS (
    SELECT n.due FROM unnest($6::text[]) AS g(name)
    CROSS JOIN LATERAL (
        SELECT s.due FROM {schema}.inbox_state AS s
        WHERE s.group_name = g.name AND s.version = $1 AND s.due IS NOT NULL
            AND s.id NOT IN (SELECT c.id FROM candidates AS c)
        ORDER BY s.due
        LIMIT 1
    ) AS n
    ORDER BY n.due
    LIMIT 1
), taken AS (
    UPDATE {schema}.inbox_state AS s SET
        owner = $3,
        due = statement_timestamp() + $4::bigint * interval '1 microsecond',
        epoch = s.epoch + 1,
        status = CASE WHEN s.status = 1 THEN 0 ELSE s.status END,
        crashes = s.crashes + (c.crashed IS NOT NULL)::integer,
        last_error = coalesce('process died while handling, node ' || c.crashed, s.last_error)
    FROM candidates AS c
    WHERE s.id = c.id
    RETURNING s.id, s.epoch, s.status, s.attempts, s.attempts_before_rerun, s.reruns, s.reason, s.last_error, c.due,
        s.crashes, c.suspect, c.started_before, c.crashed
), recorded AS (
    INSERT INTO {schema}.attempts (side, id, number, at, node, error, next_due, crash_epoch)
    SELECT 1, t.id, t.attempts + 1, statement_timestamp(), t.crashed, t.last_error, statement_timestamp(), t.epoch - 1
    FROM taken AS t WHERE t.crashed IS NOT NULL
)
SELECT t.id, t.epoch, t.status, t.attempts, t.attempts_before_rerun, t.reruns, t.reason, t.last_error,
    t.crashes, t.suspect, t.started_before, t.crashed,
    m.group_name, m.headers, m.body,
    (extract(epoch FROM statement_timestamp() - m.added) * 1000000)::bigint AS age,
    (SELECT count(*) FROM due) AS due, (SELECT count(*) FROM candidates) AS claimed,
    (SELECT (extract(epoch FROM n.due - statement_timestamp()) * 1000000)::bigint FROM next AS n) AS next_due
FROM (SELECT) AS always
LEFT JOIN taken AS t ON true
LEFT JOIN {schema}.inbox AS m ON m.id = t.id
ORDER BY t.due, t.id";

/// The maximum for the bodies of one claim, whatever is requested: all of them are read at once, within the time that a
/// statement has.
const CLAIMED_BYTES: usize = 64 << 20;

/// How long to wait at least, and at most, for rows that are due but locked by a session that is about to write their
/// outcomes.
const LOCKED: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// Claims rows that are due.
#[derive(Debug)]
pub(crate) struct ClaimDue {
    pub(crate) claim: Sides,
    pub(crate) rows: ClaimedRows,
}

impl ClaimDue {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        let claim = Sides { outbox: templates.one(OUTBOX), inbox: templates.one(INBOX) };
        Self { claim, rows: ClaimedRows::prepare(templates) }
    }

    /// Claims rows that are due. `completion` writes the outcome of those that cannot be read.
    pub(crate) async fn claim(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        completion: &Completion,
        request: &ClaimRequest,
    ) -> Result<Claims, Fault> {
        let owner = writing.owner;
        check_owner(owner)?;
        let mut groups: Vec<&str> = request.groups.iter().map(|group| &**group).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in &groups {
            check_text("a group to claim for", group, usize::MAX)?;
        }
        let limit = limit_of(request.limit);
        let mut query = sqlx::query(self.claim.of(request.side))
            .bind(&*owner.version)
            .bind(limit)
            .bind(&*owner.node)
            .bind(micros(owner.lease))
            .bind(limit_of(request.bytes.min(CLAIMED_BYTES)));
        if request.side == Side::Inbox {
            query = query.bind(&groups);
        }
        let rows = query.fetch_all(&mut *connection).await?;
        let next_due = next_due(&rows, limit)?;
        let claimed = self.rows.read(connection, writing, completion, request.side, rows).await?;
        Ok(Claims { rows: claimed, next_due })
    }
}

/// How long until the next row is due that was not claimed.
fn next_due(rows: &[PgRow], limit: i64) -> Result<Option<Duration>, Fault> {
    let Some(row) = rows.first() else { return Ok(None) };
    let Some(next) = row.try_get::<Option<i64>, _>("next_due")? else { return Ok(None) };
    let (due, claimed): (i64, i64) = (row.try_get("due")?, row.try_get("claimed")?);
    let full = due >= limit || claimed < due;
    if next > 0 || full {
        return Ok(Some(span_of(next)));
    }
    // As long again as it has been due so far: often at first, then ever more rarely.
    let [shortest, longest] = LOCKED;
    Ok(Some(span_of(next.saturating_neg()).clamp(shortest, longest)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use cap_adapter::storage::Owner;

    use super::*;
    use crate::database::encoding::Encoding;
    use crate::database::schema_name::SchemaName;
    use crate::schema::creation::initialize;
    use crate::schema::ownership::Trust;
    use crate::test_pool::pool;

    /// Between the beginning of a claim and the row's lock an operator may have changed the message: it is read again.
    #[tokio::test]
    async fn a_message_that_was_changed_meanwhile_is_claimed_as_it_is_now() {
        let name = SchemaName::new(&format!("cap_claim_{:016x}", fastrand::u64(..)));
        // Nothing is committed, and so nothing left behind.
        let mut transaction = pool().begin().await.unwrap();
        initialize(&mut transaction, &name, &Trust::default())
            .await
            .map_err(|fault| format!("{fault:?}"))
            .unwrap();
        let fill = "
            INSERT INTO {schema}.inbox (id, version, name, group_name, headers, body)
            SELECT g, 'v1', 'n', 'g', '{}', 'old' FROM generate_series(1, 2) AS g;
            INSERT INTO {schema}.inbox_state (id, version, group_name, status, due, reruns)
            SELECT g, 'v1', 'g', 0, now(), g - 1 FROM generate_series(1, 2) AS g";
        sqlx::raw_sql(name.templates().one(fill)).execute(&mut *transaction).await.unwrap();
        let claims = ClaimDue::prepare(&name.templates());
        let claim = sqlx::query(claims.claim.of(Side::Inbox))
            .bind("v1")
            .bind(10_i64)
            .bind("a")
            .bind(1_i64)
            .bind(1_i64 << 20);
        let rows = claim.bind(vec!["g"]).fetch_all(&mut *transaction).await.unwrap();
        let change = name.templates().one("UPDATE {schema}.inbox SET body = 'new'");
        sqlx::raw_sql(change).execute(&mut *transaction).await.unwrap();
        let owner = Owner { node: "a".into(), version: "v1".into(), lease: Duration::from_secs(1) };
        let writing = Writing {
            owner: &owner,
            channel: "none",
            announces: true,
            encoding: &Encoding::Utf8,
            prepared: true,
        };
        let completion = Completion::prepare(&name.templates());
        let claimed = claims.rows.read(&mut transaction, writing, &completion, Side::Inbox, rows).await;
        let claimed = claimed.map_err(|fault| format!("{fault:?}")).unwrap();
        let bodies: Vec<&[u8]> = claimed.iter().map(|row| &*row.message.body).collect();
        assert_eq!(bodies, [&b"old"[..], b"new"], "only a message that was run again can have changed");
    }
}
