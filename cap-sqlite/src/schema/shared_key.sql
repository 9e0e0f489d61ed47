-- Version 1.4: the key that the nodes of these tables share. With it they prove to each other that a retry which comes back
-- from a broker is theirs.

CREATE TABLE {prefix}shared_key (
    single INTEGER PRIMARY KEY CHECK (single = 1),
    key BLOB NOT NULL
) STRICT;

INSERT INTO {prefix}schema_version (major, minor) VALUES (1, 4);
