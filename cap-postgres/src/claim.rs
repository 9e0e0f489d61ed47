//! Claiming what is due, and keeping what was claimed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cap_adapter::storage::{ClaimRequest, Claimed, Claims, Lease, Owner, Reason, Side, Suspect};
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::columns::{check_owner, check_text, count_of, message_at, micros, reason_of, span_of};
use crate::complete::{self, Change};
use crate::error::Fault;
use crate::insert::Writing;
use crate::statements::Statements;

// One statement claims, reads the messages and looks for what is due next. It takes no more once the bodies so far are as
// large as it is told; their lengths are known without reading them. Rows that another transaction has locked
// are skipped; they count as due next only while the limit, and not a lock, may have kept them back, or else in a
// moment, when the lock is gone. `statement_timestamp`, unlike `clock_timestamp`, can be looked up in an index.
//
// `NOT IN` is a hash of the few claimed ids here, made once.

pub(crate) const OUTBOX: &str = "
WITH due AS MATERIALIZED (
    SELECT s.id, s.due FROM {schema}.outbox_state AS s
    WHERE s.version = $1 AND s.due <= statement_timestamp()
    ORDER BY s.due, s.id
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), candidates AS MATERIALIZED (
    SELECT d.id, d.due FROM (
        SELECT d.id, d.due, sum(octet_length(m.body)) OVER earlier AS before
        FROM due AS d LEFT JOIN {schema}.outbox AS m ON m.id = d.id
        WINDOW earlier AS (ORDER BY d.due, d.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ) AS d
    WHERE coalesce(d.before, 0) < $5
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

pub(crate) const INBOX: &str = "
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
        SELECT d.*, sum(octet_length(m.body)) OVER earlier AS before
        FROM due AS d LEFT JOIN {schema}.inbox AS m ON m.id = d.id
        WINDOW earlier AS (ORDER BY d.due, d.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ) AS d
    WHERE coalesce(d.before, 0) < $5
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

// Whoever comes second finds the epoch changed when the first has let the row go. Rows are locked in the order of their
// ids, in which they are given.
pub(crate) const WAITING: &str = "
WITH taken AS (
    UPDATE {schema}.inbox_state AS s SET
        owner = $2,
        due = statement_timestamp() + $3::bigint * interval '1 microsecond',
        epoch = s.epoch + 1
    FROM unnest($4::bigint[], $5::integer[]) AS w(id, epoch)
    WHERE s.id = w.id AND s.epoch = w.epoch AND s.status = 2 AND s.owner IS NULL AND s.version = $1
    RETURNING s.id, s.epoch, s.status, s.attempts, s.attempts_before_rerun, s.reruns, s.reason, s.last_error,
        s.crashes
)
SELECT t.id, t.epoch, t.status, t.attempts, t.attempts_before_rerun, t.reruns, t.reason, t.last_error,
    t.crashes, false AS suspect, false AS started_before, NULL::text AS crashed,
    m.group_name, m.headers, m.body,
    (extract(epoch FROM statement_timestamp() - m.added) * 1000000)::bigint AS age
FROM taken AS t
LEFT JOIN {schema}.inbox AS m ON m.id = t.id";

/// Messages as they are now.
pub(crate) const MESSAGES: &str =
    "SELECT m.id, m.headers, m.body FROM {messages} AS m WHERE m.id = ANY($1::bigint[])";

// It waits for nobody: one row that is locked for long must not cost all the others their leases. Whoever has locked it is
// about to say what becomes of it, which most often is this node itself; until then it counts as held.
pub(crate) const RENEW: &str = "
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

/// When the bodies that were claimed have so many bytes together, no further ones are: all of them are read at once, within
/// the time that a statement has.
const CLAIMED_BYTES: i64 = 64 << 20;

/// How long to wait at least, and at most, for rows that are due but locked by somebody who is about to say what becomes
/// of them.
const LOCKED: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// Claims what is due.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    request: &ClaimRequest,
) -> Result<Claims, Fault> {
    let owner = writing.owner;
    check_owner(&owner.version, &owner.node)?;
    let mut groups: Vec<&str> = request.groups.iter().map(|group| &**group).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in &groups {
        check_text("a group to claim for", group, usize::MAX)?;
    }
    let limit = i64::try_from(request.limit).unwrap_or(i64::MAX);
    let mut query = sqlx::query(writing.statements.claim.of(request.side))
        .bind(&*owner.version)
        .bind(limit)
        .bind(&*owner.node)
        .bind(micros(owner.lease))
        .bind(CLAIMED_BYTES);
    if request.side == Side::Inbox {
        query = query.bind(&groups);
    }
    let rows = query.fetch_all(&mut *connection).await?;
    let next_due = next_due(&rows, limit)?;
    let claimed = readable(connection, writing, request.side, &rows).await?;
    shrink_after(connection, &claimed);
    Ok(Claims { rows: claimed, next_due })
}

/// Claims rows that wait for the broker, those that still do.
pub(crate) async fn claim_waiting(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    leases: &[Lease],
) -> Result<Vec<Option<Claimed>>, Fault> {
    let owner = writing.owner;
    check_owner(&owner.version, &owner.node)?;
    let mut ordered = leases.to_vec();
    ordered.sort_by_key(|lease| lease.id);
    let rows = sqlx::query(writing.statements.claim_waiting.clone())
        .bind(&*owner.version)
        .bind(&*owner.node)
        .bind(micros(owner.lease))
        .bind(ordered.iter().map(|lease| lease.id).collect::<Vec<_>>())
        .bind(ordered.iter().map(|lease| lease.epoch).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
    let claimed = readable(connection, writing, Side::Inbox, &rows).await?;
    shrink_after(connection, &claimed);
    let mut claimed: HashMap<(i64, i32), Claimed> =
        claimed.into_iter().map(|row| ((row.lease.id, row.lease.epoch - 1), row)).collect();
    Ok(leases.iter().map(|lease| claimed.remove(&(lease.id, lease.epoch))).collect())
}

/// Gives back the memory of the driver's buffers, which would stay as large as the largest answer.
fn shrink_after(connection: &mut PgConnection, claimed: &[Claimed]) {
    const LARGE: usize = 1024 * 1024;
    if claimed.iter().map(|row| row.message.body.len()).sum::<usize>() > LARGE {
        connection.shrink_buffers();
    }
}

/// Of the rows that a statement has claimed, those that can be worked on. One that cannot be read waits for an operator,
/// and one whose message is gone goes too.
async fn readable(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    side: Side,
    rows: &[PgRow],
) -> Result<Vec<Claimed>, Fault> {
    let current = current_messages(connection, writing, side, rows).await?;
    let mut readable = Vec::with_capacity(rows.len());
    let mut corrupt = Vec::new();
    let mut orphans = Vec::new();
    for row in rows {
        let Some(id) = row.try_get::<Option<i64>, _>("id")? else { continue };
        let lease = Lease { id, epoch: row.try_get("epoch")? };
        if row.try_get::<Option<&str>, _>("headers")?.is_none() {
            orphans.push(lease);
            continue;
        }
        match claimed(row, current.get(&id).unwrap_or(row), lease)? {
            Ok(claimed) => readable.push(claimed),
            Err(error) => corrupt.push((lease, error)),
        }
    }
    if !corrupt.is_empty() {
        set_aside(connection, writing, side, &corrupt).await?;
    }
    if !orphans.is_empty() {
        complete::end_orphans(connection, writing, side, &orphans).await?;
    }
    Ok(readable)
}

/// Reads the messages of rows that were run again once more. A statement sees all messages as they were when it began,
/// and such a message may have been changed before its row was claimed; now that the row is claimed, it stays.
async fn current_messages(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    side: Side,
    rows: &[PgRow],
) -> Result<HashMap<i64, PgRow>, Fault> {
    let mut ids = Vec::new();
    for row in rows {
        if row.try_get::<Option<i32>, _>("reruns")?.is_some_and(|reruns| reruns > 0) {
            ids.push(row.try_get::<i64, _>("id")?);
        }
    }
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let messages = sqlx::query(writing.statements.messages.of(side)).bind(ids).fetch_all(connection).await?;
    messages.into_iter().map(|message| Ok((message.try_get("id")?, message))).collect()
}

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

/// The row as it is claimed, with its message, or what is wrong with that.
fn claimed(row: &PgRow, message: &PgRow, lease: Lease) -> Result<Result<Claimed, String>, sqlx::Error> {
    let message = match message_at(message)? {
        Ok(message) => message,
        Err(error) => return Ok(Err(error)),
    };
    let is_notice = row.try_get::<i16, _>("status")? == crate::columns::FAILED;
    let reason = reason_of(row.try_get("reason")?).unwrap_or(Reason::Exhausted);
    let error = row.try_get::<Option<String>, _>("last_error")?.unwrap_or_default();
    Ok(Ok(Claimed {
        lease,
        message,
        group: Arc::from(row.try_get::<&str, _>("group_name")?),
        attempts: count_of(row.try_get("attempts")?),
        attempts_before_rerun: count_of(row.try_get("attempts_before_rerun")?),
        age: span_of(row.try_get("age")?),
        notice: is_notice.then_some((reason, error)),
        crashes: count_of(row.try_get("crashes")?),
        suspect: suspect(row)?,
    }))
}

fn suspect(row: &PgRow) -> Result<Option<Suspect>, sqlx::Error> {
    let crashed = row.try_get::<Option<&str>, _>("crashed")?.map(Arc::from);
    let suspect = Suspect { started_before: row.try_get("started_before")?, crashed };
    Ok(row.try_get::<bool, _>("suspect")?.then_some(suspect))
}

/// Rows that cannot be read wait for an operator, and stand in nobody's way.
async fn set_aside(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    side: Side,
    corrupt: &[(Lease, String)],
) -> Result<(), Fault> {
    for (lease, error) in corrupt {
        tracing::error!(row = lease.id, ?side, error, "a stored message cannot be read and was set aside");
    }
    let changes: Vec<_> = corrupt.iter().map(|(lease, error)| Change::corrupt(*lease, error)).collect();
    complete::change(connection, &writing.statements.complete.change, writing, side, &changes).await?;
    Ok(())
}

/// Lengthens leases.
pub(crate) async fn renew(
    connection: &mut PgConnection,
    statements: &Statements,
    owner: &Owner,
    side: Side,
    leases: &[Lease],
) -> Result<Vec<bool>, Fault> {
    let mut ordered = leases.to_vec();
    ordered.sort_by_key(|lease| lease.id);
    let row = sqlx::query(statements.renew.of(side))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use crate::encoding::Encoding;
    use crate::plans::pool;
    use crate::schema::{self, SchemaName};
    use crate::statements::statement;

    /// Between the beginning of a claim and the row's lock an operator may have changed the message: it is read again.
    #[tokio::test]
    async fn a_message_that_was_changed_meanwhile_is_claimed_as_it_is_now() {
        let name = SchemaName::new(&format!("cap_claim_{:016x}", fastrand::u64(..)));
        // Nothing is committed, and so nothing left behind.
        let mut transaction = pool().begin().await.unwrap();
        schema::initialize(&mut transaction, &name, &crate::trust::Trust::default())
            .await
            .map_err(|fault| format!("{fault:?}"))
            .unwrap();
        let fill = "
            INSERT INTO {schema}.inbox (id, version, name, group_name, headers, body)
            SELECT g, 'v1', 'n', 'g', '{}', 'old' FROM generate_series(1, 2) AS g;
            INSERT INTO {schema}.inbox_state (id, version, group_name, status, due, reruns)
            SELECT g, 'v1', 'g', 0, now(), g - 1 FROM generate_series(1, 2) AS g";
        sqlx::raw_sql(statement(&name, fill)).execute(&mut *transaction).await.unwrap();
        let statements = Statements::new(&name);
        let claim = sqlx::query(statements.claim.of(Side::Inbox))
            .bind("v1")
            .bind(10_i64)
            .bind("a")
            .bind(1_i64)
            .bind(CLAIMED_BYTES);
        let rows = claim.bind(vec!["g"]).fetch_all(&mut *transaction).await.unwrap();
        let change = statement(&name, "UPDATE {schema}.inbox SET body = 'new'");
        sqlx::raw_sql(change).execute(&mut *transaction).await.unwrap();
        let owner = Owner { node: "a".into(), version: "v1".into(), lease: Duration::from_secs(1) };
        let writing = Writing {
            statements: &statements,
            owner: &owner,
            channel: "none",
            announces: true,
            encoding: &Encoding::Utf8,
            prepared: true,
        };
        let claimed = readable(&mut transaction, writing, Side::Inbox, &rows).await;
        let claimed = claimed.map_err(|fault| format!("{fault:?}")).unwrap();
        let bodies: Vec<&[u8]> = claimed.iter().map(|row| &*row.message.body).collect();
        assert_eq!(bodies, [&b"old"[..], b"new"], "what nobody has run again nobody has changed");
    }
}
