-- Version 1.2: what a received message says, so that another one under its id is not taken for it.

-- 128 bits of SHA-256 over topic and body as received; null: stored by a process of version 1.1 or before.
ALTER TABLE {prefix}inbox ADD COLUMN digest BLOB;

INSERT INTO {prefix}schema_version (major, minor) VALUES (1, 2);
