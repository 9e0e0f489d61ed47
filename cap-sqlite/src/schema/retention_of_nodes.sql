-- Version 1.1: how long each node keeps messages that succeeded, so that the views show when such a message expires.

-- In microseconds. Null for a node of an older version, which does not say it.
ALTER TABLE {prefix}nodes ADD COLUMN succeeded_expire_after INTEGER;
-- Whose it is: an older node that takes over a worker id does not know the column, and leaves it as it is.
ALTER TABLE {prefix}nodes ADD COLUMN succeeded_expire_after_of TEXT;

-- The retention of the node that joined last: what holds for the messages while no node is there.
CREATE TABLE {prefix}last_node (
    single INTEGER PRIMARY KEY CHECK (single = 1),
    succeeded_expire_after INTEGER NOT NULL
) STRICT;

-- The shortest of all nodes that use these tables, since the collector of any of them may delete the message. CAP's default
-- of one day stands for nodes that do not say it, and for tables that no node has ever joined.
CREATE VIEW {prefix}shortest_retention AS
SELECT coalesce(
    (
        SELECT min(CASE
            WHEN n.succeeded_expire_after_of = n.node THEN n.succeeded_expire_after
            ELSE 86400000000
        END)
        FROM {prefix}nodes AS n
        WHERE n.lease_until > CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000
    ),
    (SELECT l.succeeded_expire_after FROM {prefix}last_node AS l),
    86400000000
) AS shortest;

DROP VIEW {prefix}published;

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
    strftime('%Y-%m-%d %H:%M:%f', CASE
        WHEN s.status = 1 THEN s.due
        WHEN s.expires IS NULL AND coalesce(s.status, 4) = 4
            THEN m.added + (SELECT r.shortest FROM {prefix}shortest_retention AS r)
        ELSE s.expires
    END / 1000000.0, 'unixepoch') AS "ExpiresAt",
    CASE
        WHEN s.status = 0 THEN 'Scheduled'
        WHEN s.status = 1 THEN 'Delayed'
        WHEN s.status IN (2, 3) THEN 'Failed'
        ELSE 'Succeeded'
    END AS "StatusName"
FROM {prefix}outbox AS m
LEFT JOIN {prefix}outbox_state AS s ON s.id = m.id;

DROP VIEW {prefix}received;

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
    strftime('%Y-%m-%d %H:%M:%f', CASE
        WHEN s.status = 1 THEN s.due
        WHEN s.expires IS NULL AND coalesce(s.status, 4) = 4
            THEN m.added + (SELECT r.shortest FROM {prefix}shortest_retention AS r)
        ELSE s.expires
    END / 1000000.0, 'unixepoch') AS "ExpiresAt",
    CASE
        WHEN s.status = 0 THEN 'Scheduled'
        WHEN s.status = 1 THEN 'Delayed'
        WHEN s.status IN (2, 3) THEN 'Failed'
        ELSE 'Succeeded'
    END AS "StatusName"
FROM {prefix}inbox AS m
LEFT JOIN {prefix}inbox_state AS s ON s.id = m.id;

INSERT INTO {prefix}schema_version (major, minor) VALUES (1, 1);
