-- Version 1.2: how long each node keeps messages that succeeded, so that the views show when such a message expires.

-- In microseconds. Null for a node of an older version, which does not say it.
ALTER TABLE {schema}.nodes ADD COLUMN succeeded_expire_after bigint;
-- Whose it is: an older node that takes over a worker id does not know the column, and leaves it as it is.
ALTER TABLE {schema}.nodes ADD COLUMN succeeded_expire_after_of text;

COMMENT ON COLUMN {schema}.nodes.worker IS '-1: no node, but the retention of the one that joined last, which holds while none is there';

-- The shortest of all nodes that use this schema, since the collector of any of them may delete the message. CAP's default
-- of one day stands for nodes that do not say it, and for a schema that no node has ever joined.
CREATE VIEW {schema}.shortest_retention AS
SELECT coalesce(
    (
        SELECT min(CASE
            WHEN n.succeeded_expire_after_of = n.node THEN n.succeeded_expire_after
            ELSE 86400000000
        END)
        FROM {schema}.nodes AS n
        WHERE n.worker >= 0 AND n.lease_until > statement_timestamp()
    ),
    (SELECT n.succeeded_expire_after FROM {schema}.nodes AS n WHERE n.worker = -1),
    86400000000
) * interval '1 microsecond' AS shortest;

CREATE OR REPLACE VIEW {schema}.published AS
SELECT
    m.id AS "Id",
    m.version AS "Version",
    m.name AS "Name",
    '{"Headers":' || {schema}.dotnet_json({schema}.with_header(m.headers, 'cap-exception', s.last_error))
        || ',"Value":' || CASE
            WHEN octet_length(m.body) = 0 THEN 'null'
            WHEN {schema}.is_json(m.body) THEN convert_from(m.body, 'UTF8')
            ELSE {schema}.dotnet_json(to_json(
                'data:' || coalesce({schema}.header_value(m.headers, 'cap-msg-type'), 'UnknownType')
                || ';base64,' || replace(encode(m.body, 'base64'), chr(10), ''))::text)
        END || '}' AS "Content",
    coalesce(s.attempts, 0) AS "Retries",
    m.added::timestamp AS "Added",
    CASE
        WHEN s.status = 1 THEN s.due
        WHEN s.expires IS NULL AND coalesce(s.status, 4) = 4 THEN m.added + (SELECT r.shortest FROM {schema}.shortest_retention AS r)
        ELSE s.expires
    END::timestamp AS "ExpiresAt",
    CASE
        WHEN s.status = 0 THEN 'Scheduled'
        WHEN s.status = 1 THEN 'Delayed'
        WHEN s.status IN (2, 3) THEN 'Failed'
        ELSE 'Succeeded'
    END::varchar(50) AS "StatusName"
FROM {schema}.outbox AS m
LEFT JOIN {schema}.outbox_state AS s ON s.id = m.id;

CREATE OR REPLACE VIEW {schema}.received AS
SELECT
    m.id AS "Id",
    m.version AS "Version",
    m.name AS "Name",
    m.group_name AS "Group",
    '{"Headers":' || {schema}.dotnet_json({schema}.with_header(
            {schema}.with_header(m.headers, 'cap-exec-instance-id', CASE WHEN s.last_error IS NOT NULL THEN (
                SELECT a.node FROM {schema}.attempts AS a
                WHERE a.side = 1 AND a.id = m.id ORDER BY a.number DESC LIMIT 1
            ) END),
            'cap-exception', s.last_error))
        || ',"Value":' || CASE
            WHEN octet_length(m.body) = 0 THEN 'null'
            WHEN {schema}.is_json(m.body) THEN convert_from(m.body, 'UTF8')
            ELSE {schema}.dotnet_json(to_json(
                'data:' || coalesce({schema}.header_value(m.headers, 'cap-msg-type'), 'UnknownType')
                || ';base64,' || replace(encode(m.body, 'base64'), chr(10), ''))::text)
        END || '}' AS "Content",
    coalesce(s.attempts, 0) AS "Retries",
    m.added::timestamp AS "Added",
    CASE
        WHEN s.status = 1 THEN s.due
        WHEN s.expires IS NULL AND coalesce(s.status, 4) = 4 THEN m.added + (SELECT r.shortest FROM {schema}.shortest_retention AS r)
        ELSE s.expires
    END::timestamp AS "ExpiresAt",
    CASE
        WHEN s.status = 0 THEN 'Scheduled'
        WHEN s.status = 1 THEN 'Delayed'
        WHEN s.status IN (2, 3) THEN 'Failed'
        ELSE 'Succeeded'
    END::varchar(50) AS "StatusName"
FROM {schema}.inbox AS m
LEFT JOIN {schema}.inbox_state AS s ON s.id = m.id;

INSERT INTO {schema}.schema_version (major, minor) VALUES (1, 2);
