-- Version 1.3: what a received message says, so that another one under its id is not taken for it.

ALTER TABLE {schema}.inbox ADD COLUMN digest bytea;

COMMENT ON COLUMN {schema}.inbox.digest IS '128 bits of SHA-256 over topic and body as received; null: stored by a node of version 1.2 or before';
COMMENT ON COLUMN {schema}.inbox.message_id IS 'null: the delivery named none, or another row has it now; cap-conflict:..: another row has the one in the headers';

INSERT INTO {schema}.schema_version (major, minor) VALUES (1, 3);
