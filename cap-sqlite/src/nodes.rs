//! Which node has which worker id, so that no two make the same ids.

use cap_adapter::message::MAX_WORKER;
use cap_adapter::storage::NodeRequest;
use sqlx::{Row as _, SqliteConnection};

use crate::columns::{check_text, micros};
use crate::error::Fault;
use crate::session::begin;
use crate::statements::Statements;

pub(crate) const ALL: &str = "SELECT worker, node, lease_until FROM {prefix}nodes ORDER BY worker";

pub(crate) const JOIN: &str = "
INSERT INTO {prefix}nodes (worker, node, lease_until, succeeded_expire_after, succeeded_expire_after_of)
VALUES (?1, ?2, ?3, ?4, ?2)
ON CONFLICT (worker) DO UPDATE SET
    node = excluded.node,
    lease_until = excluded.lease_until,
    succeeded_expire_after = excluded.succeeded_expire_after,
    succeeded_expire_after_of = excluded.succeeded_expire_after_of";

pub(crate) const LAST: &str = "
INSERT INTO {prefix}last_node (single, succeeded_expire_after) VALUES (1, ?1)
ON CONFLICT (single) DO UPDATE SET succeeded_expire_after = excluded.succeeded_expire_after";

pub(crate) const KEEP_ALIVE: &str =
    "UPDATE {prefix}nodes SET lease_until = ?3 WHERE worker = ?1 AND node = ?2";

pub(crate) const LEAVE: &str = "DELETE FROM {prefix}nodes WHERE worker = ?1 AND node = ?2";

/// A number that a node has, or had.
#[derive(Debug)]
struct Node {
    worker: u16,
    name: String,
    lease_until: i64,
}

/// Claims the requested number, or a free one.
pub(crate) async fn join(
    connection: &mut SqliteConnection,
    statements: &Statements,
    request: &NodeRequest,
) -> Result<u16, Fault> {
    check_text("the node's name", &request.node, usize::MAX)?;
    if let Some(requested) = request.worker.filter(|requested| *requested > MAX_WORKER) {
        return Err(Fault::Unusable(format!("worker id {requested} is out of range: use 0 to {MAX_WORKER}")));
    }
    // One node at a time chooses, so that no two choose the same.
    let (mut transaction, now) = begin(connection).await?;
    let mut nodes = Vec::new();
    for row in sqlx::query(statements.nodes.clone()).fetch_all(&mut *transaction).await? {
        let (name, lease_until) = (row.try_get("node")?, row.try_get("lease_until")?);
        nodes.push(Node { worker: row.try_get::<u16, _>("worker")?, name, lease_until });
    }
    let worker = choose(&nodes, request, now)?;
    sqlx::query(statements.join.clone())
        .bind(worker)
        .bind(&*request.node)
        .bind(now + micros(request.lease))
        .bind(micros(request.succeeded_expire_after))
        .execute(&mut *transaction)
        .await?;
    sqlx::query(statements.last_node.clone())
        .bind(micros(request.succeeded_expire_after))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(worker)
}

/// The requested number, unless its node lives. Without a wish: the node's own number; else one that nobody had before;
/// else the one whose lease ended first. The nodes stand in the order of their numbers.
fn choose(nodes: &[Node], request: &NodeRequest, now: i64) -> Result<u16, Fault> {
    if let Some(requested) = request.worker {
        let holder = nodes.iter().find(|node| node.worker == requested);
        return match holder.filter(|node| node.name != *request.node && node.lease_until > now) {
            None => Ok(requested),
            Some(Node { name, .. }) => Err(Fault::Unusable(format!(
                "worker id {requested} belongs to the node {name}, which lives: give each node its own"
            ))),
        };
    }
    let own = || nodes.iter().find(|node| node.name == *request.node).map(|node| node.worker);
    let unused = || (0..=MAX_WORKER).find(|worker| nodes.iter().all(|node| node.worker != *worker));
    let ended = || {
        let dead = nodes.iter().filter(|node| node.lease_until <= now);
        dead.min_by_key(|node| node.lease_until).map(|node| node.worker)
    };
    own().or_else(unused).or_else(ended).ok_or_else(|| {
        Fault::Unavailable(
            "every worker id belongs to a node that lives; one is free when a node leaves".to_owned(),
        )
    })
}

/// Lengthens the claim, unless another node has taken the number.
pub(crate) async fn keep_alive(
    connection: &mut SqliteConnection,
    statements: &Statements,
    request: &NodeRequest,
    worker: u16,
) -> Result<bool, Fault> {
    let (mut transaction, now) = begin(connection).await?;
    let done = sqlx::query(statements.keep_alive.clone())
        .bind(worker)
        .bind(&*request.node)
        .bind(now + micros(request.lease))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(done.rows_affected() > 0)
}

/// Gives the number back.
pub(crate) async fn leave(
    connection: &mut SqliteConnection,
    statements: &Statements,
    node: &str,
    worker: u16,
) -> Result<(), Fault> {
    sqlx::query(statements.leave.clone()).bind(worker).bind(node).execute(connection).await?;
    Ok(())
}
