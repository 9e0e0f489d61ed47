//! The statements for people.

/// What is shown of a message. The attempts of one that has no state row any more are counted one by one.
const COLUMNS: &str = "
    m.id, m.version, m.name, {group} AS group_name, m.headers, m.body, m.added,
    s.status, s.reason, s.reruns, s.last_error, s.due, s.expires, s.owner,
    CASE
        WHEN s.id IS NOT NULL THEN s.attempts
        ELSE (SELECT count(*)::integer FROM {schema}.attempts AS a WHERE a.side = {side} AND a.id = m.id AND a.crash_epoch IS NULL)
    END AS attempts";

/// A template with the columns put in.
pub(crate) fn rows(template: &str) -> String {
    template.replace("{columns}", COLUMNS)
}

/// A template that gives the ids alone: no message is read but for the conditions.
pub(crate) fn ids(template: &str) -> String {
    template.replace("{columns}", "m.id")
}

pub(crate) const LIST_MESSAGES: &str = "
SELECT {columns}
FROM {messages} AS m
LEFT JOIN {states} AS s ON s.id = m.id
WHERE m.id < $1 AND m.id >= $12
    AND ($2::text IS NULL OR m.name = $2)
    AND ($3::text IS NULL OR {group} = $3)
    AND ($4::smallint IS NULL OR coalesce(s.status, 4) = $4)
    AND ($5::text IS NULL OR s.reason = $5)
    AND ($6::text IS NULL OR strpos(s.last_error, $6) > 0)
    AND ($7::bigint IS NULL OR m.added >= timestamptz 'epoch' + $7 * interval '1 microsecond')
    AND ($8::bigint IS NULL OR m.added < timestamptz 'epoch' + $8 * interval '1 microsecond')
    AND ($10::text IS NULL OR s.reason IS DISTINCT FROM $10)
    AND ($11::text IS NULL OR m.version = $11)
ORDER BY m.id DESC
LIMIT $9";

pub(crate) const LIST_STATES: &str = "
SELECT {columns}
FROM {states} AS s
JOIN {messages} AS m ON m.id = s.id
WHERE s.id < $1
    AND ($2::text IS NULL OR m.name = $2)
    AND ($3::text IS NULL OR {group} = $3)
    AND ($4::smallint IS NULL OR s.status = $4)
    AND ($5::text IS NULL OR s.reason = $5)
    AND ($6::text IS NULL OR strpos(s.last_error, $6) > 0)
    AND ($7::bigint IS NULL OR m.added >= timestamptz 'epoch' + $7 * interval '1 microsecond')
    AND ($8::bigint IS NULL OR m.added < timestamptz 'epoch' + $8 * interval '1 microsecond')
    AND ($10::text IS NULL OR s.reason IS DISTINCT FROM $10)
    AND ($11::text IS NULL OR s.version = $11)
ORDER BY s.id DESC
LIMIT $9";

pub(crate) const GET: &str = "
SELECT {columns}
FROM {messages} AS m
LEFT JOIN {states} AS s ON s.id = m.id
WHERE m.id = $1";

pub(crate) const FIND_OUTBOX: &str = "
SELECT {columns}
FROM (
    SELECT o.id FROM {messages} AS o WHERE o.message_id = $1
    UNION ALL
    SELECT o.id FROM {messages} AS o WHERE o.id = $2 AND o.message_id IS NULL
) AS f
JOIN {messages} AS m ON m.id = f.id
LEFT JOIN {states} AS s ON s.id = m.id
ORDER BY m.id";

pub(crate) const FIND_INBOX: &str = "
SELECT {columns}
FROM {messages} AS m
LEFT JOIN {states} AS s ON s.id = m.id
WHERE m.message_id = $1
ORDER BY m.id";

pub(crate) const ATTEMPTS: &str = "SELECT number, at, node, error, next_due FROM {schema}.attempts WHERE side = $1 AND id = $2 ORDER BY number, at";

pub(crate) const LOCK_MESSAGES: &str =
    "SELECT m.id FROM {messages} AS m WHERE m.id = ANY($1::bigint[]) ORDER BY m.id FOR UPDATE";

// A message without a state row was never re-run, for the row of one that was stays. It gets a row whose epoch begins
// far above what its first one can have counted to: a word that was said under that is never taken for a new one.
// Whether it failed is asked twice: of what is there now, and once more when the row's lock has come. One that has failed
// keeps its state row for as long as its message is locked.
pub(crate) const RERUN: &str = "
INSERT INTO {states} AS x
    (id, version, {group_column} status, attempts, attempts_before_rerun, reruns, epoch, due)
SELECT m.id, m.version, {group_value} 0, a.failed, a.failed, 1,
    1073741824, statement_timestamp()
FROM {messages} AS m
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS failed FROM {schema}.attempts AS a
    WHERE a.side = {side} AND a.id = m.id AND a.crash_epoch IS NULL
) AS a
WHERE m.id = ANY($1::bigint[])
    AND ($2::boolean OR EXISTS (SELECT FROM {states} AS s WHERE s.id = m.id AND s.status = 3))
ORDER BY m.id
ON CONFLICT (id) DO UPDATE SET
    status = 0,
    {no_crashes}
    attempts_before_rerun = x.attempts,
    reruns = x.reruns + 1,
    due = statement_timestamp(),
    owner = NULL,
    reason = NULL,
    expires = NULL
WHERE x.status = 3
    OR $2::boolean AND (x.owner IS NULL OR x.due IS NULL OR x.due <= statement_timestamp())
RETURNING x.id";

pub(crate) const HEADERS: &str = "SELECT m.id, m.headers FROM {messages} AS m WHERE m.id = ANY($1::bigint[])";

pub(crate) const CHANGE_MESSAGES: &str = "
UPDATE {messages} AS m SET headers = c.headers, body = coalesce($3::bytea, m.body)
FROM unnest($1::bigint[], $2::text[]) AS c(id, headers)
WHERE m.id = c.id";

pub(crate) const CANCEL: &str = "
UPDATE {schema}.outbox_state AS x SET
    status = 3,
    reason = 'cancelled',
    due = NULL,
    owner = NULL,
    expires = statement_timestamp() + $2::bigint * interval '1 microsecond'
WHERE x.id = ANY($1::bigint[]) AND x.status = 1
RETURNING x.id";

pub(crate) const DELETE: &str = "
WITH wanted AS (
    SELECT m.id FROM {messages} AS m WHERE m.id = ANY($1::bigint[])
), ended AS (
    DELETE FROM {states} AS s USING wanted AS w
    WHERE s.id = w.id AND (
        s.status = 3
        OR $2::boolean AND (s.owner IS NULL OR s.due IS NULL OR s.due <= statement_timestamp())
    )
    RETURNING s.id
), messages AS (
    DELETE FROM {messages} AS m USING wanted AS w
    WHERE m.id = w.id AND (
        m.id IN (SELECT e.id FROM ended AS e)
        OR $2::boolean AND NOT EXISTS (SELECT FROM {states} AS s WHERE s.id = m.id)
    )
    RETURNING m.id
), past AS (
    DELETE FROM {schema}.attempts AS a USING messages AS m WHERE a.side = {side} AND a.id = m.id
)
SELECT id FROM messages";

// A row that is there for nothing but its epoch is not counted, nor one that was cancelled.
pub(crate) const COUNTS: &str = "
SELECT 0 AS side, '' AS group_name, status, count(*) AS count FROM {schema}.outbox_state
WHERE (status <> 4 OR reason IS NOT NULL OR expires IS NOT NULL) AND reason IS DISTINCT FROM 'cancelled'
GROUP BY status
UNION ALL
SELECT 1, group_name, status, count(*) FROM {schema}.inbox_state
WHERE (status <> 4 OR reason IS NOT NULL OR expires IS NOT NULL) AND reason IS DISTINCT FROM 'cancelled'
GROUP BY group_name, status";
