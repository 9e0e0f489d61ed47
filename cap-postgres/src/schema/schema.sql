-- The tables of cap, version 1.0.

CREATE TABLE {schema}.schema_version (
    major integer NOT NULL,
    minor integer NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (major, minor)
);

-- The messages. Each stays as it was stored, unless a person re-runs it with a change.

CREATE TABLE {schema}.outbox (
    id bigint PRIMARY KEY,
    version varchar(20) NOT NULL,
    name varchar(200) NOT NULL,
    message_id varchar(200),
    headers text NOT NULL,
    body bytea NOT NULL,
    added timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0.05);

COMMENT ON COLUMN {schema}.outbox.message_id IS 'null: the message id is the row id in decimal';

CREATE UNIQUE INDEX outbox_message_id ON {schema}.outbox (message_id) WHERE message_id IS NOT NULL;

CREATE TABLE {schema}.inbox (
    id bigint PRIMARY KEY,
    version varchar(20) NOT NULL,
    name varchar(200) NOT NULL,
    group_name varchar(200) NOT NULL,
    message_id varchar(200),
    headers text NOT NULL,
    body bytea NOT NULL,
    added timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT inbox_message_id UNIQUE (message_id, group_name)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

COMMENT ON COLUMN {schema}.inbox.message_id IS 'null: the delivery named none';

-- One narrow row for each message that is not simply done, or that was once run again: its epoch must go on. Rows come
-- and go all the time: room in the pages and an eager vacuum keep these tables small.

CREATE TABLE {schema}.outbox_state (
    id bigint PRIMARY KEY,
    version varchar(20) NOT NULL,
    status smallint NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    attempts_before_rerun integer NOT NULL DEFAULT 0,
    reruns integer NOT NULL DEFAULT 0,
    epoch integer NOT NULL DEFAULT 0,
    due timestamptz,
    expires timestamptz,
    owner text,
    reason text,
    last_error text
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE {schema}.outbox_state IS 'a message of the outbox without a row here has succeeded';
COMMENT ON COLUMN {schema}.outbox_state.status IS '0 scheduled, 1 delayed, 2 retrying, 3 failed, 4 succeeded';
COMMENT ON COLUMN {schema}.outbox_state.due IS 'from then on any node may claim it; the end of the lease while one works on it';
COMMENT ON COLUMN {schema}.outbox_state.epoch IS 'rises with each claim, so that a node that lost the row cannot speak about it any more';

CREATE INDEX outbox_state_due ON {schema}.outbox_state (version, due, id) WHERE due IS NOT NULL;
CREATE INDEX outbox_state_expires ON {schema}.outbox_state (expires) WHERE expires IS NOT NULL;

CREATE TABLE {schema}.inbox_state (
    id bigint PRIMARY KEY,
    version varchar(20) NOT NULL,
    group_name varchar(200) NOT NULL,
    status smallint NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    attempts_before_rerun integer NOT NULL DEFAULT 0,
    reruns integer NOT NULL DEFAULT 0,
    epoch integer NOT NULL DEFAULT 0,
    due timestamptz,
    expires timestamptz,
    owner text,
    reason text,
    last_error text
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE {schema}.inbox_state IS 'a message of the inbox without a row here has succeeded';
COMMENT ON COLUMN {schema}.inbox_state.status IS '0 scheduled, 1 delayed, 2 retrying, 3 failed, 4 succeeded';

CREATE INDEX inbox_state_due ON {schema}.inbox_state (group_name, due, id) WHERE due IS NOT NULL;
CREATE INDEX inbox_state_expires ON {schema}.inbox_state (expires) WHERE expires IS NOT NULL;

-- Every attempt that failed.

CREATE TABLE {schema}.attempts (
    side smallint NOT NULL,
    id bigint NOT NULL,
    number integer NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    node text NOT NULL,
    error text NOT NULL,
    next_due timestamptz
);

COMMENT ON COLUMN {schema}.attempts.side IS '0 outbox, 1 inbox';
COMMENT ON COLUMN {schema}.attempts.next_due IS 'when the next attempt was due then; null: there was to be none';

CREATE INDEX attempts_of ON {schema}.attempts (side, id);

-- Which node has which worker number.

CREATE TABLE {schema}.nodes (
    worker smallint PRIMARY KEY,
    node text NOT NULL,
    lease_until timestamptz NOT NULL
);

-- What follows shows the messages with the columns of .NET CAP. Nothing of it is used by cap itself.

-- JSON text with the characters escaped that .NET escapes. It is JSON already, so no control character stands in
-- it raw, and chr(1) can stand in for an escaped backslash meanwhile.
CREATE FUNCTION {schema}.dotnet_json(json text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $cap$
DECLARE
    backslash CONSTANT text := chr(92);
    result text := replace(json, backslash || backslash, chr(1));
    plain text;
BEGIN
    result := replace(result, backslash || '"', backslash || 'u0022');
    FOREACH plain IN ARRAY ARRAY['&', '''', '+', '<', '>', '`', chr(127)] LOOP
        result := replace(result, plain, backslash || 'u' || upper(lpad(to_hex(ascii(plain)), 4, '0')));
    END LOOP;
    IF position(backslash || 'u00' IN result) > 0 THEN
        FOREACH plain IN ARRAY ARRAY['0b', '0e', '0f', '1a', '1b', '1c', '1d', '1e', '1f'] LOOP
            result := replace(result, backslash || 'u00' || plain, backslash || 'u00' || upper(plain));
        END LOOP;
    END IF;
    IF octet_length(result) > length(result) AND getdatabaseencoding() = 'UTF8' THEN
        SELECT string_agg(
            CASE
                WHEN code < 128 THEN letter
                WHEN code < 65536 THEN backslash || 'u' || upper(lpad(to_hex(code), 4, '0'))
                ELSE backslash || 'u' || upper(to_hex(55296 + ((code - 65536) >> 10)))
                    || backslash || 'u' || upper(to_hex(56320 + ((code - 65536) & 1023)))
            END, '' ORDER BY place)
        INTO result
        FROM (
            SELECT letter, ascii(letter) AS code, place
            FROM regexp_split_to_table(result, '') WITH ORDINALITY AS s(letter, place)
        ) AS letters;
    END IF;
    RETURN replace(result, chr(1), backslash || backslash);
END
$cap$;

CREATE FUNCTION {schema}.is_json(body bytea) RETURNS boolean LANGUAGE plpgsql IMMUTABLE STRICT AS $cap$
BEGIN
    PERFORM convert_from(body, 'UTF8')::json;
    RETURN true;
EXCEPTION WHEN OTHERS THEN
    RETURN false;
END
$cap$;

-- The value of one header. A NUL in any header, which no text of PostgreSQL can hold, is shown as a replacement.
CREATE FUNCTION {schema}.header_value(headers text, name text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $cap$
BEGIN
    RETURN replace(headers, chr(92) || 'u0000', chr(92) || 'ufffd')::json ->> name;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$cap$;

-- The headers with one more at the end, in the place of one of the same name if there was one.
CREATE FUNCTION {schema}.with_header(headers text, name text, value text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $cap$
DECLARE
    kept text := headers;
BEGIN
    IF value IS NULL THEN
        RETURN headers;
    END IF;
    IF position(to_json(name)::text || ':' IN headers) > 0 THEN
        BEGIN
            SELECT coalesce('{' || string_agg(to_json(h.key)::text || ':' || h.value::text, ',' ORDER BY h.place) || '}', '{}')
            INTO kept
            FROM json_each(headers::json) WITH ORDINALITY AS h(key, value, place)
            WHERE h.key <> name;
        EXCEPTION WHEN OTHERS THEN
            kept := headers;
        END;
    END IF;
    kept := CASE WHEN kept = '{}' THEN '{' ELSE left(kept, -1) || ',' END;
    RETURN kept || to_json(name)::text || ':' || to_json(value)::text || '}';
END
$cap$;

CREATE VIEW {schema}.published AS
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

CREATE VIEW {schema}.received AS
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

INSERT INTO {schema}.schema_version (major, minor) VALUES (1, 0);
