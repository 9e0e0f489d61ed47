//! The key that the nodes of a schema share.

use cap_adapter::storage::SharedKey;
use cap_sql::templates::Templates;
use sqlx::{PgConnection, SqlStr};

use crate::database::error::Fault;

// In a row of the table of nodes, as that of the retention is: a role that was granted the use of the tables has no right to
// a new one. No node takes this worker id and its lease never ends, so that statements about nodes, those of earlier
// versions too, leave it alone.
const INSERT: &str = "
INSERT INTO {schema}.nodes (worker, node, lease_until) VALUES (-2, encode($1, 'hex'), 'infinity')
ON CONFLICT (worker) DO NOTHING";

const READ: &str = "
SELECT CASE WHEN n.node ~ '^[0-9a-f]{64}$' THEN decode(n.node, 'hex') END FROM {schema}.nodes AS n WHERE n.worker = -2";

/// Reads the key, and makes it if there is none.
#[derive(Debug)]
pub(crate) struct SharedKeyRow {
    read: SqlStr,
    insert: SqlStr,
}

impl SharedKeyRow {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { read: templates.one(READ), insert: templates.one(INSERT) }
    }

    /// Returns the key of this schema; the first one ever is `fresh`.
    pub(crate) async fn get(
        &self,
        connection: &mut PgConnection,
        fresh: &SharedKey,
    ) -> Result<SharedKey, Fault> {
        if let Some(key) = self.read(connection).await? {
            return Ok(key);
        }
        // Of two nodes that start at the same moment, the second waits for the first here, and then reads its key.
        sqlx::query(self.insert.clone()).bind(fresh.as_bytes()).execute(&mut *connection).await?;
        let key = self.read(connection).await?;
        key.ok_or_else(|| Fault::Unavailable("the key of the schema was deleted at this moment".to_owned()))
    }

    async fn read(&self, connection: &mut PgConnection) -> Result<Option<SharedKey>, Fault> {
        let stored: Option<Option<Vec<u8>>> =
            sqlx::query_scalar(self.read.clone()).fetch_optional(connection).await?;
        let Some(stored) = stored else { return Ok(None) };
        let key = stored.and_then(|stored| SharedKey::from_stored(&stored));
        key.map(Some).ok_or_else(|| {
            Fault::Unusable(
                "row -2 of the table nodes is not a key: stop all nodes and delete it, and the next start makes a new one"
                    .to_owned(),
            )
        })
    }
}
