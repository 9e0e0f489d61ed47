//! The key that the nodes of these tables share.

use cap_adapter::storage::SharedKey;
use cap_sql::templates::Templates;
use sqlx::{SqlStr, SqliteConnection};

use crate::connections::session::begin;
use crate::database::error::Fault;

const INSERT: &str =
    "INSERT INTO {prefix}shared_key (single, key) VALUES (1, ?1) ON CONFLICT (single) DO NOTHING";

const READ: &str = "SELECT key FROM {prefix}shared_key WHERE single = 1";

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

    /// Returns the key of these tables; the first one ever is `fresh`.
    pub(crate) async fn get(
        &self,
        connection: &mut SqliteConnection,
        fresh: &SharedKey,
    ) -> Result<SharedKey, Fault> {
        let (mut transaction, _) = begin(connection).await?;
        sqlx::query(self.insert.clone()).bind(fresh.as_bytes()).execute(&mut *transaction).await?;
        let stored: Vec<u8> = sqlx::query_scalar(self.read.clone()).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        SharedKey::from_stored(&stored).ok_or_else(|| {
            Fault::Unusable(
                "the table shared_key holds no key: stop all nodes and delete its row; the next start makes a new one"
                    .to_owned(),
            )
        })
    }
}
