-- Version 1.3: messages that were being handled when their process died.

-- How often, since it was last re-run.
ALTER TABLE {prefix}inbox_state ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
-- The lease under which the start of a suspect's handler was noted last.
ALTER TABLE {prefix}inbox_state ADD COLUMN started_epoch INTEGER;
-- No other suspect ran on that node: a crash is counted only then.
ALTER TABLE {prefix}inbox_state ADD COLUMN started_alone INTEGER;
-- The lease under which the process died; null: an attempt that failed.
ALTER TABLE {prefix}attempts ADD COLUMN crash_epoch INTEGER;

INSERT INTO {prefix}schema_version (major, minor) VALUES (1, 3);
