-- Version 1.1: nothing in the schema depends on the search path of whoever uses it.
--
-- Another role of the database may own functions, operators and types in a schema of the search path, such as "public".
-- The functions get a path of their own, and the views are made anew under that of this script, so that a view that was
-- made under another path lets go of what it found there.

ALTER FUNCTION {schema}.dotnet_json(text) SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION {schema}.is_json(bytea) SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION {schema}.header_value(text, text) SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION {schema}.with_header(text, text, text) SET search_path = pg_catalog, pg_temp;

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
    CASE WHEN s.status = 1 THEN s.due ELSE s.expires END::timestamp AS "ExpiresAt",
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
    CASE WHEN s.status = 1 THEN s.due ELSE s.expires END::timestamp AS "ExpiresAt",
    CASE
        WHEN s.status = 0 THEN 'Scheduled'
        WHEN s.status = 1 THEN 'Delayed'
        WHEN s.status IN (2, 3) THEN 'Failed'
        ELSE 'Succeeded'
    END::varchar(50) AS "StatusName"
FROM {schema}.inbox AS m
LEFT JOIN {schema}.inbox_state AS s ON s.id = m.id;

INSERT INTO {schema}.schema_version (major, minor) VALUES (1, 1);
