//! The key that the nodes of these tables share.

use cap_adapter::storage::SharedKey;
use sqlx::SqliteConnection;

use crate::error::Fault;
use crate::session::begin;
use crate::statements::Statements;

pub(crate) const INSERT: &str =
    "INSERT INTO {prefix}shared_key (single, key) VALUES (1, ?1) ON CONFLICT (single) DO NOTHING";

pub(crate) const READ: &str = "SELECT key FROM {prefix}shared_key WHERE single = 1";

/// The key of these tables; the first one ever is `fresh`.
pub(crate) async fn shared_key(
    connection: &mut SqliteConnection,
    statements: &Statements,
    fresh: &SharedKey,
) -> Result<SharedKey, Fault> {
    let (mut transaction, _) = begin(connection).await?;
    sqlx::query(statements.insert_shared_key.clone())
        .bind(fresh.as_bytes())
        .execute(&mut *transaction)
        .await?;
    let stored: Vec<u8> =
        sqlx::query_scalar(statements.shared_key.clone()).fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    SharedKey::from_stored(&stored).ok_or_else(|| {
        Fault::Unusable(
            "the table shared_key holds no key: stop all nodes and delete its row; the next start makes a new one"
                .to_owned(),
        )
    })
}
