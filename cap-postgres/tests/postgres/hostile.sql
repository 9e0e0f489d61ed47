-- What another role of the database can make in "public": a function, aggregate, operator or domain of the name of nearly
-- everything that PostgreSQL has. Each counts that it ran, which no rollback undoes, and fails.

CREATE SEQUENCE public.ran;

DO $do$
DECLARE
    types text[] := '{bool,int2,int4,int8,float8,numeric,text,varchar,bytea,timestamptz,timestamp,interval,json,_int8,_text}';
    comparisons text[] := '{=,<>,<,<=,>,>=,~~,!~~,~}';
    body CONSTANT text := $$ LANGUAGE plpgsql AS 'BEGIN
        PERFORM pg_catalog.nextval(''public.ran'');
        RAISE EXCEPTION ''what another role has made was run''; END' $$;
    l text;
    r text;
    op text;
    f record;
    result text;
BEGIN
    -- Functions of the very same arguments.
    FOR f IN
        SELECT p.oid, p.proname, p.proretset,
            (SELECT string_agg(format('pg_catalog.%I', t.typname), ', ' ORDER BY a.place)
             FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a(type, place) JOIN pg_type AS t ON t.oid = a.type) AS arguments,
            (SELECT t.typname FROM pg_type AS t WHERE t.oid = p.prorettype) AS result
        FROM pg_proc AS p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
            AND EXISTS (SELECT FROM pg_type AS t WHERE t.oid = p.prorettype AND (t.typtype <> 'p' OR t.typname = 'void'))
            AND NOT EXISTS (
                SELECT FROM unnest(p.proargtypes::oid[]) AS a(type) JOIN pg_type AS t ON t.oid = a.type WHERE t.typtype = 'p'
            )
            AND p.proname !~ '^(int|float|text|bool|bytea|varchar|bpchar|numeric|timestamp|timestamptz|interval|json|array|oid|bt|hash)[a-z0-9_]*(in|out|recv|send|eq|ne|lt|le|gt|ge|cmp)$'
    LOOP
        EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s pg_catalog.%I', f.proname, f.arguments,
            CASE WHEN f.proretset THEN 'SETOF' END, f.result) || body;
    END LOOP;
    -- Functions that fit better than those of PostgreSQL, whose arguments are of any type.
    FOREACH l IN ARRAY types LOOP
        FOREACH op IN ARRAY ARRAY['to_json', 'concat', 'unnest', 'cardinality', 'array_length'] LOOP
            EXECUTE format('CREATE FUNCTION public.%I(pg_catalog.%I) RETURNS pg_catalog.%I', op, l,
                CASE WHEN op = 'to_json' THEN 'json' WHEN op = 'cardinality' THEN 'int4' ELSE 'text' END) || body;
            EXECUTE format('CREATE FUNCTION public.%I(pg_catalog.text, pg_catalog.%I) RETURNS pg_catalog.text', op, l) || body;
        END LOOP;
        EXECUTE format('CREATE FUNCTION public.trap(pg_catalog.int8, pg_catalog.%I) RETURNS pg_catalog.int8', l) || body;
        FOREACH op IN ARRAY ARRAY['count', 'array_agg', 'string_agg', 'sum', 'min', 'max'] LOOP
            EXECUTE format('CREATE AGGREGATE public.%I(pg_catalog.%I) (SFUNC = public.trap, STYPE = pg_catalog.int8, INITCOND = ''0'')', op, l);
        END LOOP;
    END LOOP;
    EXECUTE 'CREATE FUNCTION public.trap(pg_catalog.int8) RETURNS pg_catalog.int8' || body;
    CREATE AGGREGATE public.count(*) (SFUNC = public.trap, STYPE = int8, INITCOND = '0');
    -- Operators for every two types.
    FOREACH l IN ARRAY types LOOP
        FOREACH r IN ARRAY types LOOP
            EXECUTE format('CREATE FUNCTION public.compare(pg_catalog.%I, pg_catalog.%I) RETURNS bool', l, r) || body;
            EXECUTE format('CREATE FUNCTION public.join(pg_catalog.%I, pg_catalog.%I) RETURNS text', l, r) || body;
            FOREACH op IN ARRAY comparisons LOOP
                EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.compare, LEFTARG = pg_catalog.%I, RIGHTARG = pg_catalog.%I)', op, l, r);
            END LOOP;
            FOREACH op IN ARRAY ARRAY['||', '->', '->>', '&', '>>'] LOOP
                EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.join, LEFTARG = pg_catalog.%I, RIGHTARG = pg_catalog.%I)', op, l, r);
            END LOOP;
            result := CASE WHEN 'timestamptz' IN (l, r) THEN 'timestamptz' WHEN 'interval' IN (l, r) THEN 'interval' ELSE l END;
            EXECUTE format('CREATE FUNCTION public.sum_of(pg_catalog.%I, pg_catalog.%I) RETURNS pg_catalog.%I', l, r, result) || body;
            FOREACH op IN ARRAY ARRAY['+', '-', '*', '/'] LOOP
                EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.sum_of, LEFTARG = pg_catalog.%I, RIGHTARG = pg_catalog.%I)', op, l, r);
            END LOOP;
        END LOOP;
    END LOOP;
    -- Types.
    FOREACH l IN ARRAY ARRAY['text', 'bytea', 'timestamptz', 'json', 'int8', 'int4', 'int2', 'bool', 'varchar'] LOOP
        EXECUTE format('CREATE FUNCTION public.check_of(pg_catalog.%I) RETURNS bool', l) || body;
        EXECUTE format('CREATE DOMAIN public.%I AS pg_catalog.%I CHECK (public.check_of(VALUE))', l, l);
    END LOOP;
END
$do$;
