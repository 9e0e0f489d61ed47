-- Version 1.4: messages that were being handled when their process died.

ALTER TABLE {schema}.inbox_state
    ADD COLUMN crashes integer NOT NULL DEFAULT 0,
    ADD COLUMN started_epoch integer,
    ADD COLUMN started_alone boolean;

COMMENT ON COLUMN {schema}.inbox_state.crashes IS 'how often the process has died while handling it, since it was last re-run';
COMMENT ON COLUMN {schema}.inbox_state.started_epoch IS 'the lease under which the start of a suspect''s handler was noted last';
COMMENT ON COLUMN {schema}.inbox_state.started_alone IS 'no other suspect ran on that node: a crash is counted only then';

ALTER TABLE {schema}.attempts ADD COLUMN crash_epoch integer;

COMMENT ON COLUMN {schema}.attempts.crash_epoch IS 'the lease under which the process died; null: an attempt that failed';

INSERT INTO {schema}.schema_version (major, minor) VALUES (1, 4);
