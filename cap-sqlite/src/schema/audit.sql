-- Version 1.5: what operators did to messages.

CREATE TABLE {prefix}audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL, -- rerun, edit, delete, cancel
    side INTEGER NOT NULL, -- 0 outbox, 1 inbox
    count INTEGER NOT NULL, -- how many messages it had an effect on; ids has the first of them
    ids TEXT NOT NULL,
    former_body BLOB -- the body before an edit, or its beginning
) STRICT;

INSERT INTO {prefix}schema_version (major, minor) VALUES (1, 5);
