//! Which node has which worker id, so that no two make the same ids.

use cap_adapter::message::MAX_WORKER;
use cap_adapter::storage::NodeRequest;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::columns::{check_text, micros};
use crate::error::Fault;
use crate::locks::{self, START_LOCK_TIMEOUT};
use crate::schema::SchemaName;
use crate::statements::Statements;

pub(crate) const JOIN: &str = "
INSERT INTO {schema}.nodes (worker, node, lease_until, succeeded_expire_after, succeeded_expire_after_of)
VALUES ($1, $2, statement_timestamp() + $3::bigint * interval '1 microsecond', $4, $2)
ON CONFLICT (worker) DO UPDATE SET
    node = excluded.node,
    lease_until = excluded.lease_until,
    succeeded_expire_after = excluded.succeeded_expire_after,
    succeeded_expire_after_of = excluded.succeeded_expire_after_of
WHERE nodes.node = excluded.node OR nodes.lease_until <= statement_timestamp()
RETURNING worker";

// In a row of this table, since a role that was granted the use of the tables has no right to a new one. Nobody takes this
// number: it belongs to its row for ever.
pub(crate) const LAST: &str = "
INSERT INTO {schema}.nodes (worker, node, lease_until, succeeded_expire_after) VALUES (-1, '', 'infinity', $1)
ON CONFLICT (worker) DO UPDATE SET succeeded_expire_after = excluded.succeeded_expire_after";

pub(crate) const NODE_OF: &str = "SELECT node FROM {schema}.nodes WHERE worker = $1";

/// The node's own number; else one that nobody had before; else the one whose lease ended first.
pub(crate) const FREE: &str = "
SELECT f.worker FROM (
    SELECT min(n.worker) AS worker, 1 AS choice FROM {schema}.nodes AS n WHERE n.node = $1
    UNION ALL
    SELECT min(w)::smallint, 2 FROM generate_series(0, $2::integer) AS w
    WHERE NOT EXISTS (SELECT FROM {schema}.nodes AS n WHERE n.worker = w)
    UNION ALL
    (
        SELECT n.worker, 3 FROM {schema}.nodes AS n
        WHERE n.lease_until <= statement_timestamp() ORDER BY n.lease_until LIMIT 1
    )
) AS f
WHERE f.worker IS NOT NULL
ORDER BY f.choice
LIMIT 1";

pub(crate) const KEEP_ALIVE: &str = "
UPDATE {schema}.nodes SET lease_until = statement_timestamp() + $3::bigint * interval '1 microsecond'
WHERE worker = $1 AND node = $2";

pub(crate) const LEAVE: &str = "DELETE FROM {schema}.nodes WHERE worker = $1 AND node = $2";

/// Claims the requested number, or a free one.
pub(crate) async fn join(
    connection: &mut PgConnection,
    statements: &Statements,
    schema: &SchemaName,
    request: &NodeRequest,
) -> Result<u16, Fault> {
    check_text("the node's name", &request.node, usize::MAX)?;
    if let Some(requested) = request.worker.filter(|requested| *requested > MAX_WORKER) {
        return Err(Fault::Unusable(format!("worker id {requested} is out of range: use 0 to {MAX_WORKER}")));
    }
    let joined = draw(connection, statements, request).await;
    match joined {
        Err(fault) => Err(locks::name_holder(connection, schema, fault).await),
        Ok(worker) => Ok(u16::try_from(worker).unwrap_or(0)),
    }
}

/// How often a number is looked for that no other node takes at the same moment: of those that start at once, one succeeds
/// each time.
const DRAWS: usize = 200;

async fn draw(
    connection: &mut PgConnection,
    statements: &Statements,
    request: &NodeRequest,
) -> Result<i16, Fault> {
    for _ in 0..DRAWS {
        let worker: i16 = match request.worker {
            Some(requested) => i16::try_from(requested).unwrap_or(i16::MAX),
            None => sqlx::query_scalar(statements.free_worker.clone())
                .bind(&*request.node)
                .bind(i32::from(MAX_WORKER))
                .fetch_optional(&mut *connection)
                .await?
                .ok_or_else(all_taken)?,
        };
        // The row of the number is the lock: of two nodes that choose the same one, the second waits for the first, and
        // finds it taken.
        let mut transaction = connection.begin().await?;
        sqlx::query(START_LOCK_TIMEOUT).execute(&mut *transaction).await?;
        let joined = sqlx::query(statements.join_requested.clone())
            .bind(worker)
            .bind(&*request.node)
            .bind(micros(request.lease))
            .bind(micros(request.succeeded_expire_after))
            .fetch_optional(&mut *transaction)
            .await?;
        if joined.is_some() {
            sqlx::query(statements.last_node.clone())
                .bind(micros(request.succeeded_expire_after))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        if joined.is_some() {
            return Ok(worker);
        }
        if request.worker.is_some() {
            let holder = sqlx::query(statements.node_of.clone()).bind(worker);
            // It may have left since.
            if let Some(holder) = holder.fetch_optional(&mut *connection).await? {
                return Err(held_by(worker, holder.try_get(0)?));
            }
        }
    }
    Err(Fault::Unavailable("other nodes take every worker id at the same moment".to_owned()))
}

fn all_taken() -> Fault {
    Fault::Unavailable(
        "every worker id belongs to a node that lives; one is free when a node leaves".to_owned(),
    )
}

fn held_by(worker: i16, node: &str) -> Fault {
    Fault::Unusable(format!(
        "worker id {worker} belongs to the node {node}, which lives: give each node its own"
    ))
}

/// Lengthens the claim, unless another node has taken the number.
pub(crate) async fn keep_alive(
    connection: &mut PgConnection,
    statements: &Statements,
    request: &NodeRequest,
    worker: u16,
) -> Result<bool, Fault> {
    let done = sqlx::query(statements.keep_alive.clone())
        .bind(i16::try_from(worker).unwrap_or(i16::MAX))
        .bind(&*request.node)
        .bind(micros(request.lease))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Gives the number back.
pub(crate) async fn leave(
    connection: &mut PgConnection,
    statements: &Statements,
    node: &str,
    worker: u16,
) -> Result<(), Fault> {
    sqlx::query(statements.leave.clone())
        .bind(i16::try_from(worker).unwrap_or(i16::MAX))
        .bind(node)
        .execute(connection)
        .await?;
    Ok(())
}
