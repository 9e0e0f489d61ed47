//! The statements for people.

/// What is shown of a message. The attempts of one that has no state row any more are counted one by one.
const COLUMNS: &str = "
    m.id, m.version, m.name, {group} AS group_name, m.headers, m.body, m.added,
    (SELECT s.status FROM {states} AS s WHERE s.id = m.id) AS status,
    (SELECT s.reason FROM {states} AS s WHERE s.id = m.id) AS reason,
    (SELECT s.reruns FROM {states} AS s WHERE s.id = m.id) AS reruns,
    (SELECT s.last_error FROM {states} AS s WHERE s.id = m.id) AS last_error,
    (SELECT s.due FROM {states} AS s WHERE s.id = m.id) AS due,
    (SELECT s.expires FROM {states} AS s WHERE s.id = m.id) AS expires,
    (SELECT s.owner FROM {states} AS s WHERE s.id = m.id) AS owner,
    coalesce((SELECT s.attempts FROM {states} AS s WHERE s.id = m.id), {failed}) AS attempts";

/// How many attempts were recorded of a message.
const FAILED: &str = "(
        SELECT count(*) FROM {prefix}attempts AS a INDEXED BY {prefix}attempts_of
        WHERE a.side = {side} AND a.id = m.id AND a.crash_epoch IS NULL
    )";

/// A template with the columns put in.
pub(crate) fn rows(template: &str) -> String {
    template.replace("{columns}", COLUMNS).replace("{failed}", FAILED)
}

/// The ids of messages that have succeeded, or in whatever state.
pub(crate) const LIST_MESSAGES: &str = "
SELECT m.id
FROM {messages} AS m
WHERE m.id < ?1 AND m.id >= ?10
    AND (?2 IS NULL OR m.name = ?2)
    AND (?3 IS NULL OR {group} = ?3)
    AND (?4 IS NULL OR coalesce((SELECT s.status FROM {states} AS s WHERE s.id = m.id), 4) = ?4)
    AND (?6 IS NULL OR m.added >= ?6)
    AND (?7 IS NULL OR m.added < ?7)
    AND (?8 IS NULL OR (SELECT s.reason FROM {states} AS s WHERE s.id = m.id) IS NOT ?8)
    AND (?9 IS NULL OR m.version = ?9)
ORDER BY m.id DESC
LIMIT ?5";

/// The ids of messages that have a state row.
pub(crate) const LIST_STATES: &str = "
SELECT s.id
FROM {states} AS s
WHERE s.id < ?1
    AND (?2 IS NULL OR (SELECT m.name FROM {messages} AS m WHERE m.id = s.id) = ?2)
    AND (?3 IS NULL OR (SELECT {group} FROM {messages} AS m WHERE m.id = s.id) = ?3)
    AND (?4 IS NULL OR s.status = ?4)
    AND (?6 IS NULL OR (SELECT m.added FROM {messages} AS m WHERE m.id = s.id) >= ?6)
    AND (?7 IS NULL OR (SELECT m.added FROM {messages} AS m WHERE m.id = s.id) < ?7)
    AND (?8 IS NULL OR s.reason IS NOT ?8)
    AND (?9 IS NULL OR s.version = ?9)
    AND (?10 IS NULL OR s.reason = ?10)
    AND (?11 IS NULL OR instr(s.last_error, ?11) > 0)
ORDER BY s.id DESC
LIMIT ?5";

pub(crate) const GET: &str = "SELECT {columns} FROM {messages} AS m WHERE m.id = ?1";

pub(crate) const FIND: &str = "
SELECT {columns}
FROM {messages} AS m INDEXED BY {messages}_message_id
WHERE m.message_id = ?1
ORDER BY m.id";

pub(crate) const ATTEMPTS: &str = "
SELECT number, at, node, error, next_due FROM {prefix}attempts INDEXED BY {prefix}attempts_of
WHERE side = ?1 AND id = ?2 ORDER BY number, at";

// A message without a state row was never re-run, for the row of one that was stays. It gets a row whose epoch begins
// far above what its first one can have counted to: a word that was said under that is never taken for a new one.
pub(crate) const RERUN: &str = "
INSERT INTO {states} AS x
    (id, version, {group_column} status, attempts, attempts_before_rerun, reruns, epoch, due)
SELECT m.id, m.version, {group_column} 0, {failed}, {failed}, 1, 1073741824, ?2
FROM {messages} AS m
WHERE m.id = ?1 AND (?3 OR EXISTS (SELECT 1 FROM {states} AS s WHERE s.id = m.id AND s.status = 3))
ON CONFLICT (id) DO UPDATE SET
    status = 0,
    {no_crashes}
    attempts_before_rerun = x.attempts,
    reruns = x.reruns + 1,
    due = ?2,
    owner = NULL,
    reason = NULL,
    expires = NULL
WHERE x.status = 3 OR x.owner IS NULL OR x.due IS NULL OR x.due <= ?2";

pub(crate) const HEADERS: &str = "SELECT m.headers FROM {messages} AS m WHERE m.id = ?1";

pub(crate) const CHANGE_MESSAGE: &str =
    "UPDATE {messages} SET headers = ?2, body = coalesce(?3, body) WHERE id = ?1";

pub(crate) const CANCEL: &str = "
UPDATE {prefix}outbox_state SET status = 3, reason = 'cancelled', due = NULL, owner = NULL, expires = ?2
WHERE id = ?1 AND status = 1";

/// The message, if nobody works on it.
pub(crate) const IDLE: &str = "
SELECT m.id FROM {messages} AS m
WHERE m.id = ?1
    AND (?3 OR EXISTS (SELECT 1 FROM {states} AS s WHERE s.id = m.id AND s.status = 3))
    AND NOT EXISTS (
        SELECT 1 FROM {states} AS s WHERE s.id = m.id AND s.status <> 3 AND s.owner IS NOT NULL AND s.due > ?2
    )";

/// As the next one, of no more rows than a limit and one, which tells whether there are more.
pub(crate) const COUNT_FEW: &str = "
SELECT {side} AS side, {few_group} AS group_name, x.status, count(*) FILTER (
    WHERE (x.status <> 4 OR x.reason IS NOT NULL OR x.expires IS NOT NULL) AND x.reason IS NOT 'cancelled'
) AS count, count(*) AS seen
FROM (SELECT s.* FROM {states} AS s ORDER BY s.id LIMIT ?1 + 1) AS x
GROUP BY 2, x.status";

/// Where there are more: so many that are due at some time, and so many that are kept for operators, those that stay the
/// longest first, which are the failed ones.
pub(crate) const COUNT_MANY: &str = "
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

// A row that is there for nothing but its epoch is not counted, nor one that was cancelled.
pub(crate) const COUNTS: &str = "
SELECT 0 AS side, '' AS group_name, status, count(*) AS count FROM {prefix}outbox_state
WHERE (status <> 4 OR reason IS NOT NULL OR expires IS NOT NULL) AND reason IS NOT 'cancelled'
GROUP BY status
UNION ALL
SELECT 1, group_name, status, count(*) FROM {prefix}inbox_state
WHERE (status <> 4 OR reason IS NOT NULL OR expires IS NOT NULL) AND reason IS NOT 'cancelled'
GROUP BY group_name, status";
