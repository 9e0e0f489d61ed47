//! Gives each node a worker id of its own, so that no two make the same ids.

use cap_adapter::message::MAX_WORKER;
use cap_adapter::storage::NodeRequest;
use cap_sql::columns::micros;
use cap_sql::templates::Templates;
use cap_sql::worker_id::{ALL_TAKEN, check_request, out_of_range, taken};
use sqlx::{Connection as _, PgConnection, Row as _, SqlStr};

use crate::database::error::Fault;
use crate::database::schema_name::SchemaName;
use crate::schema::lock_holders::{self, START_LOCK_TIMEOUT};

const JOIN: &str = "
INSERT INTO {schema}.nodes (worker, node, lease_until, succeeded_expire_after, succeeded_expire_after_of)
VALUES ($1, $2, statement_timestamp() + $3::bigint * interval '1 microsecond', $4, $2)
ON CONFLICT (worker) DO UPDATE SET
    node = excluded.node,
    lease_until = excluded.lease_until,
    succeeded_expire_after = excluded.succeeded_expire_after,
    succeeded_expire_after_of = excluded.succeeded_expire_after_of
WHERE nodes.node = excluded.node OR nodes.lease_until <= statement_timestamp()
RETURNING worker";

// In a row of this table, since a role that was granted the use of the tables has no right to a new one. No node takes this
// worker id: it belongs to its row for ever.
const LAST: &str = "
INSERT INTO {schema}.nodes (worker, node, lease_until, succeeded_expire_after) VALUES (-1, '', 'infinity', $1)
ON CONFLICT (worker) DO UPDATE SET succeeded_expire_after = excluded.succeeded_expire_after";

const NODE_OF: &str = "SELECT node FROM {schema}.nodes WHERE worker = $1";

/// The node's own worker id; else one that no node had before; else the one whose lease expired first.
const FREE: &str = "
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

const KEEP_ALIVE: &str = "
UPDATE {schema}.nodes SET lease_until = statement_timestamp() + $3::bigint * interval '1 microsecond'
WHERE worker = $1 AND node = $2";

const LEAVE: &str = "DELETE FROM {schema}.nodes WHERE worker = $1 AND node = $2";

/// How often a node tries to take a worker id that no other node takes at the same moment: of those that start at once, one
/// succeeds each time.
const DRAWS: usize = 200;

/// Claims, renews and releases worker ids.
#[derive(Debug)]
pub(crate) struct WorkerIds {
    join: SqlStr,
    last: SqlStr,
    node_of: SqlStr,
    free: SqlStr,
    keep_alive: SqlStr,
    leave: SqlStr,
}

impl WorkerIds {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            join: templates.one(JOIN),
            last: templates.one(LAST),
            node_of: templates.one(NODE_OF),
            free: templates.one(FREE),
            keep_alive: templates.one(KEEP_ALIVE),
            leave: templates.one(LEAVE),
        }
    }

    /// Claims the requested worker id, or a free one.
    pub(crate) async fn join(
        &self,
        connection: &mut PgConnection,
        schema: &SchemaName,
        request: &NodeRequest,
    ) -> Result<u16, Fault> {
        check_request(request)?;
        if let Some(reason) = out_of_range(request) {
            return Err(Fault::Unusable(reason));
        }
        let joined = self.draw(connection, request).await;
        match joined {
            Err(fault) => Err(lock_holders::name_holder(connection, schema, fault).await),
            Ok(worker) => Ok(u16::try_from(worker).unwrap_or(0)),
        }
    }

    async fn draw(&self, connection: &mut PgConnection, request: &NodeRequest) -> Result<i16, Fault> {
        for _ in 0..DRAWS {
            let worker: i16 = match request.worker {
                Some(requested) => i16::try_from(requested).unwrap_or(i16::MAX),
                None => sqlx::query_scalar(self.free.clone())
                    .bind(&*request.node)
                    .bind(i32::from(MAX_WORKER))
                    .fetch_optional(&mut *connection)
                    .await?
                    .ok_or_else(|| Fault::Unavailable(ALL_TAKEN.to_owned()))?,
            };
            // The row of the worker id is the lock: of two nodes that choose the same one, the second waits for the first, and
            // finds it taken.
            let mut transaction = connection.begin().await?;
            sqlx::query(START_LOCK_TIMEOUT).execute(&mut *transaction).await?;
            let joined = sqlx::query(self.join.clone())
                .bind(worker)
                .bind(&*request.node)
                .bind(micros(request.lease))
                .bind(micros(request.succeeded_expire_after))
                .fetch_optional(&mut *transaction)
                .await?;
            if joined.is_some() {
                sqlx::query(self.last.clone())
                    .bind(micros(request.succeeded_expire_after))
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            if joined.is_some() {
                return Ok(worker);
            }
            if request.worker.is_some() {
                let holder = sqlx::query(self.node_of.clone()).bind(worker);
                // It may have left since.
                if let Some(holder) = holder.fetch_optional(&mut *connection).await? {
                    let worker = u16::try_from(worker).unwrap_or(u16::MAX);
                    return Err(Fault::Unusable(taken(worker, holder.try_get(0)?)));
                }
            }
        }
        Err(Fault::Unavailable("other nodes take every worker id at the same moment".to_owned()))
    }

    /// Renews the claim, unless another node has taken the worker id.
    pub(crate) async fn keep_alive(
        &self,
        connection: &mut PgConnection,
        request: &NodeRequest,
        worker: u16,
    ) -> Result<bool, Fault> {
        let done = sqlx::query(self.keep_alive.clone())
            .bind(i16::try_from(worker).unwrap_or(i16::MAX))
            .bind(&*request.node)
            .bind(micros(request.lease))
            .execute(connection)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Releases the worker id.
    pub(crate) async fn leave(
        &self,
        connection: &mut PgConnection,
        node: &str,
        worker: u16,
    ) -> Result<(), Fault> {
        sqlx::query(self.leave.clone())
            .bind(i16::try_from(worker).unwrap_or(i16::MAX))
            .bind(node)
            .execute(connection)
            .await?;
        Ok(())
    }
}
