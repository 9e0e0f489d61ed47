-- The tables of cap, version 1.0. Times are microseconds since 1970.

CREATE TABLE {prefix}schema_version (
    major INTEGER NOT NULL,
    minor INTEGER NOT NULL,
    since INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000),
    PRIMARY KEY (major, minor)
) STRICT;

-- The messages. Each stays as it was stored, unless a person re-runs it with a change.

CREATE TABLE {prefix}outbox (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    name TEXT NOT NULL,
    message_id TEXT NOT NULL,
    added INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX {prefix}outbox_message_id ON {prefix}outbox (message_id);
CREATE INDEX {prefix}outbox_added ON {prefix}outbox (added);

CREATE TABLE {prefix}inbox (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    name TEXT NOT NULL,
    group_name TEXT NOT NULL,
    message_id TEXT, -- null: the delivery named none
    added INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX {prefix}inbox_message_id ON {prefix}inbox (message_id, group_name);
CREATE INDEX {prefix}inbox_added ON {prefix}inbox (added);

-- One narrow row for each message that is not simply done, or that was once run again: its epoch must go on. A message
-- without one has succeeded.

CREATE TABLE {prefix}outbox_state (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    status INTEGER NOT NULL, -- 0 scheduled, 1 delayed, 2 retrying, 3 failed, 4 succeeded
    attempts INTEGER NOT NULL DEFAULT 0,
    attempts_before_rerun INTEGER NOT NULL DEFAULT 0,
    reruns INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER NOT NULL DEFAULT 0, -- rises with each claim: who lost the row cannot speak about it any more
    due INTEGER, -- from then on anyone may claim it; the end of the lease while somebody works on it
    expires INTEGER,
    owner TEXT,
    reason TEXT,
    last_error TEXT
) STRICT;

CREATE INDEX {prefix}outbox_state_due ON {prefix}outbox_state (version, due) WHERE due IS NOT NULL;
CREATE INDEX {prefix}outbox_state_expires ON {prefix}outbox_state (expires) WHERE expires IS NOT NULL;

CREATE TABLE {prefix}inbox_state (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    group_name TEXT NOT NULL,
    status INTEGER NOT NULL, -- as in {prefix}outbox_state
    attempts INTEGER NOT NULL DEFAULT 0,
    attempts_before_rerun INTEGER NOT NULL DEFAULT 0,
    reruns INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER NOT NULL DEFAULT 0,
    due INTEGER,
    expires INTEGER,
    owner TEXT,
    reason TEXT,
    last_error TEXT
) STRICT;

CREATE INDEX {prefix}inbox_state_due ON {prefix}inbox_state (version, group_name, due) WHERE due IS NOT NULL;
CREATE INDEX {prefix}inbox_state_expires ON {prefix}inbox_state (expires) WHERE expires IS NOT NULL;

-- Every attempt that failed.

CREATE TABLE {prefix}attempts (
    side INTEGER NOT NULL, -- 0 outbox, 1 inbox
    id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    node TEXT NOT NULL,
    error TEXT NOT NULL,
    next_due INTEGER -- when the next attempt was due then; null: there was to be none
) STRICT;

CREATE INDEX {prefix}attempts_of ON {prefix}attempts (side, id);

-- Which node has which worker number.

CREATE TABLE {prefix}nodes (
    worker INTEGER PRIMARY KEY,
    node TEXT NOT NULL,
    lease_until INTEGER NOT NULL
) STRICT;

-- Raised by whoever leaves work to others, who look here.

CREATE TABLE {prefix}signals (
    side INTEGER PRIMARY KEY, -- 0 outbox, 1 inbox
    count INTEGER NOT NULL
) STRICT;

INSERT INTO {prefix}signals (side, count) VALUES (0, 0), (1, 0);

-- What follows shows the messages with the columns of .NET CAP. Nothing of it is used by cap itself. A body that is not
-- JSON is shown in hexadecimal, as SQLite has no base64.

CREATE VIEW {prefix}published AS
SELECT
    m.id AS "Id",
    m.version AS "Version",
    m.name AS "Name",
    '{"Headers":' || CASE
            WHEN s.last_error IS NULL OR NOT json_valid(m.headers) THEN m.headers
            ELSE json_set(json_remove(m.headers, '$."cap-exception"'), '$."cap-exception"', s.last_error)
        END
        || ',"Value":' || CASE
            WHEN length(m.body) = 0 THEN 'null'
            WHEN instr(m.body, x'00') = 0 AND json_valid(CAST(m.body AS TEXT)) THEN CAST(m.body AS TEXT)
            ELSE json_quote('data:application/octet-stream;hex,' || hex(m.body))
        END || '}' AS "Content",
    coalesce(s.attempts, 0) AS "Retries",
    strftime('%Y-%m-%d %H:%M:%f', m.added / 1000000.0, 'unixepoch') AS "Added",
    strftime('%Y-%m-%d %H:%M:%f', CASE WHEN s.status = 1 THEN s.due ELSE s.expires END / 1000000.0, 'unixepoch')
        AS "ExpiresAt",
    CASE
        WHEN s.status = 0 THEN 'Scheduled'
        WHEN s.status = 1 THEN 'Delayed'
        WHEN s.status IN (2, 3) THEN 'Failed'
        ELSE 'Succeeded'
    END AS "StatusName"
FROM {prefix}outbox AS m
LEFT JOIN {prefix}outbox_state AS s ON s.id = m.id;

CREATE VIEW {prefix}received AS
SELECT
    m.id AS "Id",
    m.version AS "Version",
    m.name AS "Name",
    m.group_name AS "Group",
    '{"Headers":' || CASE
            WHEN s.last_error IS NULL OR NOT json_valid(m.headers) THEN m.headers
            ELSE json_set(
                json_remove(m.headers, '$."cap-exec-instance-id"', '$."cap-exception"'),
                '$."cap-exec-instance-id"', (
                    SELECT a.node FROM {prefix}attempts AS a
                    WHERE a.side = 1 AND a.id = m.id ORDER BY a.number DESC LIMIT 1
                ),
                '$."cap-exception"', s.last_error)
        END
        || ',"Value":' || CASE
            WHEN length(m.body) = 0 THEN 'null'
            WHEN instr(m.body, x'00') = 0 AND json_valid(CAST(m.body AS TEXT)) THEN CAST(m.body AS TEXT)
            ELSE json_quote('data:application/octet-stream;hex,' || hex(m.body))
        END || '}' AS "Content",
    coalesce(s.attempts, 0) AS "Retries",
    strftime('%Y-%m-%d %H:%M:%f', m.added / 1000000.0, 'unixepoch') AS "Added",
    strftime('%Y-%m-%d %H:%M:%f', CASE WHEN s.status = 1 THEN s.due ELSE s.expires END / 1000000.0, 'unixepoch')
        AS "ExpiresAt",
    CASE
        WHEN s.status = 0 THEN 'Scheduled'
        WHEN s.status = 1 THEN 'Delayed'
        WHEN s.status IN (2, 3) THEN 'Failed'
        ELSE 'Succeeded'
    END AS "StatusName"
FROM {prefix}inbox AS m
LEFT JOIN {prefix}inbox_state AS s ON s.id = m.id;

INSERT INTO {prefix}schema_version (major, minor) VALUES (1, 0);
