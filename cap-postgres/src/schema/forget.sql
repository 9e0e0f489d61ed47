-- Version 1.5: the mark of a message whose handler's transaction commits, as a function, which keeps its plans and fails
-- when the lease is lost: the commit that is sent with it is then not reached.

-- A row that was re-run stays, with nothing in it but its epoch, so that no lease is ever given twice. The settings are for
-- connections of the application's, where the planner is the application's: the row is looked up by its key. The tag around
-- the body is longer than the name of a schema can be, and so in none.
CREATE FUNCTION {schema}.forget(of_row bigint, of_epoch integer) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $cap_body_of_a_function_with_a_tag_that_is_longer_than_any_name_of_a_schema$
BEGIN
    -- From here on the row is locked: a node that stands still keeps it for a minute at most.
    IF current_setting('idle_in_transaction_session_timeout')::interval NOT BETWEEN interval '1 ms' AND interval '60 s' THEN
        PERFORM set_config('idle_in_transaction_session_timeout', '60s', true);
    END IF;
    DELETE FROM {schema}.inbox_state WHERE id = of_row AND epoch = of_epoch AND owner IS NOT NULL AND reruns = 0;
    IF FOUND THEN
        RETURN;
    END IF;
    UPDATE {schema}.inbox_state
    SET status = 4, reruns = 0, due = NULL, expires = NULL, owner = NULL, reason = NULL, last_error = NULL
    WHERE id = of_row AND epoch = of_epoch AND owner IS NOT NULL AND reruns > 0;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of the message is lost: another node has it' USING ERRCODE = 'CAP01';
    END IF;
END
$cap_body_of_a_function_with_a_tag_that_is_longer_than_any_name_of_a_schema$;

INSERT INTO {schema}.schema_version (major, minor) VALUES (1, 5);
