//! Checks that the schema is ours alone: who owns it and its tables, and what others have attached to them.
//!
//! A trigger, a rule, a default or an index on one of our tables runs code of its owner, with the rights of the
//! role that writes, and sees every message. Any role that may create a schema can make ours beforehand.

use sqlx::{PgConnection, Row as _};

use crate::database::error::Fault;
use crate::database::schema_name::SchemaName;
use crate::schema::scripts::objects;

/// The owners and attachments that the application accepts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    pub(crate) owners: Vec<String>,
    pub(crate) allowed: Vec<String>,
}

/// The roles that may own the schema: the current one and those it belongs to, the database's owner, superusers, and those
/// that are named. `pg_has_role` will not do, as a superuser belongs to every role by that. The last column is
/// the name for `schema_owner`.
const OWNERS: &str = "
WITH RECURSIVE own(role) AS (
    SELECT r.oid FROM pg_roles AS r WHERE r.rolname = current_user
    UNION
    SELECT m.roleid FROM pg_auth_members AS m JOIN own AS o ON o.role = m.member
), accepted(role) AS (
    SELECT o.role FROM own AS o
    UNION SELECT d.datdba FROM pg_database AS d WHERE d.datname = current_database()
    UNION SELECT r.oid FROM pg_roles AS r
        WHERE r.rolsuper OR r.rolname = 'pg_database_owner' OR r.rolname = ANY($2::text[])
), found(what, owner) AS (
    SELECT 'the schema', n.nspowner FROM pg_namespace AS n WHERE n.nspname = $1
    UNION ALL
    SELECT format('%s %I', CASE c.relkind WHEN 'v' THEN 'the view' ELSE 'the table' END, c.relname), c.relowner
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY($3::text[])
    UNION ALL
    SELECT format('the function %I', p.proname), p.proowner
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = $1 AND p.proname = ANY($3::text[])
)
SELECT f.what, pg_get_userbyid(f.owner)::text AS owner FROM found AS f
WHERE f.owner NOT IN (SELECT a.role FROM accepted AS a)
ORDER BY f.what";

/// What is attached to our tables and views and is not part of the schema: what it is, its name, and the table.
///
/// What a default or an index runs is PostgreSQL's own if it depends on nothing that was created in this database; but
/// some of PostgreSQL's functions run any SQL, so that of the defaults only constants and the times of ours are known.
const ATTACHED: &str = "
WITH ours AS (
    SELECT c.oid, c.relname::text AS name, c.relkind, c.relrowsecurity OR c.relforcerowsecurity AS has_row_security
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY($2::text[]) AND c.relkind NOT IN ('i', 'c')
), attached(what, name, place) AS (
    SELECT 'trigger', t.tgname::text, o.name FROM pg_trigger AS t JOIN ours AS o ON o.oid = t.tgrelid
    WHERE NOT t.tgisinternal
    UNION ALL
    SELECT 'rule', r.rulename::text, o.name FROM pg_rewrite AS r JOIN ours AS o ON o.oid = r.ev_class
    WHERE NOT (o.relkind = 'v' AND r.rulename = '_RETURN')
    UNION ALL
    SELECT 'policy', p.polname::text, o.name FROM pg_policy AS p JOIN ours AS o ON o.oid = p.polrelid
    UNION ALL
    SELECT 'row security', o.name, o.name FROM ours AS o WHERE o.has_row_security
    UNION ALL
    SELECT 'kind of relation', o.name, o.name FROM ours AS o WHERE o.relkind NOT IN ('r', 'v')
    UNION ALL
    SELECT 'constraint', c.conname::text, o.name
    FROM pg_constraint AS c JOIN ours AS o ON o.oid IN (c.conrelid, c.confrelid)
    WHERE c.contype NOT IN ('p', 'u', 'n')
    UNION ALL
    SELECT 'inheritance', c.relname::text, o.name
    FROM pg_inherits AS i JOIN ours AS o ON o.oid IN (i.inhparent, i.inhrelid)
    JOIN pg_class AS c ON c.oid IN (i.inhparent, i.inhrelid) AND c.oid <> o.oid
    UNION ALL
    SELECT CASE a.attgenerated WHEN '' THEN 'default' ELSE 'generated column' END, a.attname::text, o.name
    FROM pg_attrdef AS d JOIN ours AS o ON o.oid = d.adrelid
    JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE a.attgenerated <> ''
        OR (pg_get_expr(d.adbin, d.adrelid) LIKE '%(%'
            AND pg_get_expr(d.adbin, d.adrelid) NOT IN ('clock_timestamp()', 'statement_timestamp()', 'now()'))
        OR EXISTS (
            SELECT FROM pg_depend AS x
            WHERE x.classid = 'pg_attrdef'::regclass AND x.objid = d.oid
                AND NOT (x.refclassid = 'pg_class'::regclass AND x.refobjid = d.adrelid)
        )
    UNION ALL
    SELECT 'type of column', a.attname::text, o.name
    FROM pg_attribute AS a JOIN ours AS o ON o.oid = a.attrelid JOIN pg_type AS t ON t.oid = a.atttypid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND t.typnamespace <> 'pg_catalog'::regnamespace
    UNION ALL
    SELECT 'index', c.relname::text, o.name
    FROM pg_index AS i JOIN ours AS o ON o.oid = i.indrelid JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE EXISTS (
        SELECT FROM pg_depend AS x
        WHERE x.classid = 'pg_class'::regclass AND x.objid = i.indexrelid
            AND x.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass,
                'pg_type'::regclass, 'pg_collation'::regclass)
    )
)
SELECT DISTINCT a.what, a.name, a.place FROM attached AS a
WHERE NOT a.name = ANY($3::text[])
ORDER BY a.place, a.what, a.name";

/// Refuses a schema that an unknown role has made, or has attached something to. A schema that is not there has neither.
///
/// This runs before anything of the schema is read: a view in the place of a table runs any SQL of its owner's.
pub(crate) async fn check(
    connection: &mut PgConnection,
    schema: &SchemaName,
    trust: &Trust,
) -> Result<(), Fault> {
    let objects = objects();
    let foreign = sqlx::query(OWNERS)
        .bind(schema.name())
        .bind(&trust.owners)
        .bind(&objects)
        .fetch_all(&mut *connection)
        .await?;
    if let Some(first) = foreign.first() {
        let (what, owner): (&str, &str) = (first.try_get("what")?, first.try_get("owner")?);
        return Err(Fault::Unusable(format!(
            "{what} of {schema} belongs to the role {owner:?}, which could read and change every message: drop it, \
             change its owner, or accept the role with Postgres::new(pool).schema_owner({owner:?}); nothing was changed",
            schema = schema.described(),
        )));
    }
    let attached = sqlx::query(ATTACHED)
        .bind(schema.name())
        .bind(&objects)
        .bind(&trust.allowed)
        .fetch_all(connection)
        .await?;
    if attached.is_empty() {
        return Ok(());
    }
    let mut list = Vec::new();
    for row in &attached {
        let (what, name, place): (&str, &str, &str) =
            (row.try_get("what")?, row.try_get("name")?, row.try_get("place")?);
        list.push(format!("{what} {name:?} on {place}"));
    }
    let name: &str = attached[0].try_get("name")?;
    Err(Fault::Unusable(format!(
        "{schema} has attachments that are not part of it and run with the rights of this service: {list}; drop them, or \
         accept them by name with Postgres::new(pool).allow({name:?}); nothing was changed",
        schema = schema.described(),
        list = list.join(", "),
    )))
}
