-- Version 1.6: what operators did to messages.

CREATE TABLE {schema}.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,
    what text NOT NULL,
    side smallint NOT NULL,
    count bigint NOT NULL,
    ids text NOT NULL,
    former_body bytea
);

COMMENT ON COLUMN {schema}.audit.what IS 'rerun, edit, delete, cancel';
COMMENT ON COLUMN {schema}.audit.side IS '0 outbox, 1 inbox';
COMMENT ON COLUMN {schema}.audit.count IS 'how many messages it had an effect on; ids has the first of them';
COMMENT ON COLUMN {schema}.audit.former_body IS 'the body before an edit, or its beginning';

INSERT INTO {schema}.schema_version (major, minor) VALUES (1, 6);
