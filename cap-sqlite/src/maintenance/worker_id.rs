//! Gives each node a worker id of its own, so that no two make the same ids.

use cap_adapter::message::MAX_WORKER;
use cap_adapter::storage::NodeRequest;
use cap_sql::columns::micros;
use cap_sql::templates::Templates;
use cap_sql::worker_id::{ALL_TAKEN, check_request, out_of_range, taken};
use sqlx::{Row as _, SqlStr, SqliteConnection};

use crate::connections::session::begin;
use crate::database::error::Fault;

const ALL: &str = "SELECT worker, node, lease_until FROM {prefix}nodes ORDER BY worker";

const JOIN: &str = "
INSERT INTO {prefix}nodes (worker, node, lease_until, succeeded_expire_after, succeeded_expire_after_of)
VALUES (?1, ?2, ?3, ?4, ?2)
ON CONFLICT (worker) DO UPDATE SET
    node = excluded.node,
    lease_until = excluded.lease_until,
    succeeded_expire_after = excluded.succeeded_expire_after,
    succeeded_expire_after_of = excluded.succeeded_expire_after_of";

const LAST: &str = "
INSERT INTO {prefix}last_node (single, succeeded_expire_after) VALUES (1, ?1)
ON CONFLICT (single) DO UPDATE SET succeeded_expire_after = excluded.succeeded_expire_after";

const KEEP_ALIVE: &str = "UPDATE {prefix}nodes SET lease_until = ?3 WHERE worker = ?1 AND node = ?2";

const LEAVE: &str = "DELETE FROM {prefix}nodes WHERE worker = ?1 AND node = ?2";

/// A worker id that a node has, or had.
#[derive(Debug)]
struct Node {
    worker: u16,
    name: String,
    lease_until: i64,
}

/// Claims, renews and releases worker ids.
#[derive(Debug)]
pub(crate) struct WorkerIds {
    all: SqlStr,
    join: SqlStr,
    last: SqlStr,
    pub(crate) keep_alive: SqlStr,
    pub(crate) leave: SqlStr,
}

impl WorkerIds {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            all: templates.one(ALL),
            join: templates.one(JOIN),
            last: templates.one(LAST),
            keep_alive: templates.one(KEEP_ALIVE),
            leave: templates.one(LEAVE),
        }
    }

    /// Claims the requested worker id, or a free one.
    pub(crate) async fn join(
        &self,
        connection: &mut SqliteConnection,
        request: &NodeRequest,
    ) -> Result<u16, Fault> {
        check_request(request)?;
        if let Some(reason) = out_of_range(request) {
            return Err(Fault::Unusable(reason));
        }
        // One node at a time chooses, so that no two choose the same.
        let (mut transaction, now) = begin(connection).await?;
        let mut nodes = Vec::new();
        for row in sqlx::query(self.all.clone()).fetch_all(&mut *transaction).await? {
            let (name, lease_until) = (row.try_get("node")?, row.try_get("lease_until")?);
            nodes.push(Node { worker: row.try_get::<u16, _>("worker")?, name, lease_until });
        }
        let worker = choose(&nodes, request, now)?;
        sqlx::query(self.join.clone())
            .bind(worker)
            .bind(&*request.node)
            .bind(now + micros(request.lease))
            .bind(micros(request.succeeded_expire_after))
            .execute(&mut *transaction)
            .await?;
        sqlx::query(self.last.clone())
            .bind(micros(request.succeeded_expire_after))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(worker)
    }

    /// Renews the claim, unless another node has taken the worker id.
    pub(crate) async fn keep_alive(
        &self,
        connection: &mut SqliteConnection,
        request: &NodeRequest,
        worker: u16,
    ) -> Result<bool, Fault> {
        let (mut transaction, now) = begin(connection).await?;
        let done = sqlx::query(self.keep_alive.clone())
            .bind(worker)
            .bind(&*request.node)
            .bind(now + micros(request.lease))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Releases the worker id.
    pub(crate) async fn leave(
        &self,
        connection: &mut SqliteConnection,
        node: &str,
        worker: u16,
    ) -> Result<(), Fault> {
        sqlx::query(self.leave.clone()).bind(worker).bind(node).execute(connection).await?;
        Ok(())
    }
}

/// Returns the requested worker id, unless its node is alive. If none is requested: the node's own; else one that no node had
/// before; else the one whose lease expired first. The nodes are in the order of their worker ids.
fn choose(nodes: &[Node], request: &NodeRequest, now: i64) -> Result<u16, Fault> {
    if let Some(requested) = request.worker {
        let holder = nodes.iter().find(|node| node.worker == requested);
        return match holder.filter(|node| node.name != *request.node && node.lease_until > now) {
            None => Ok(requested),
            Some(Node { name, .. }) => Err(Fault::Unusable(taken(requested, name))),
        };
    }
    let own = || nodes.iter().find(|node| node.name == *request.node).map(|node| node.worker);
    let unused = || (0..=MAX_WORKER).find(|worker| nodes.iter().all(|node| node.worker != *worker));
    let ended = || {
        let dead = nodes.iter().filter(|node| node.lease_until <= now);
        dead.min_by_key(|node| node.lease_until).map(|node| node.worker)
    };
    let worker = own().or_else(unused).or_else(ended);
    worker.ok_or_else(|| Fault::Unavailable(ALL_TAKEN.to_owned()))
}
