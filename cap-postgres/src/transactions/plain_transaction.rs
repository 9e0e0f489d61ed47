//! Publishes inside transactions whose commit the bus does not see. It looks for their end.

use cap_adapter::Within;
use cap_adapter::error::StorageError;
use cap_adapter::storage::{NewOutgoing, Owner, Stored, TransactionId};
use sqlx::{PgConnection, Transaction};

use crate::storage::postgres::Postgres;
use crate::transactions::pg_tx::PgTx;
use crate::write::outgoing_row::{Asked, Inserted};

/// Inserts messages on a connection of the application.
pub(crate) async fn insert_within(
    connection: &mut PgConnection,
    storage: &Postgres,
    owner: &Owner,
    messages: &[NewOutgoing],
    asked: Asked,
) -> Result<Inserted, StorageError> {
    let rows: Vec<&NewOutgoing> = messages.iter().collect();
    let shared = storage.shared();
    let insert = &shared.statements.write.outgoing;
    let inserted = insert.insert_within(connection, storage.writing_within(owner), &rows, asked).await;
    inserted.map_err(|fault| {
        fault.into_error("storing messages in the caller's transaction", &shared.application_target)
    })
}

/// Implements publishing on a connection whose transaction the bus does not see end.
macro_rules! watched {
    ($(#[$comment:meta])* $transaction:ty) => {
        $(#[$comment])*
        impl Within<Postgres> for $transaction {
            const WATCHED: bool = true;

            async fn store(
                &mut self,
                storage: &Postgres,
                owner: &Owner,
                messages: &[NewOutgoing],
            ) -> Result<Vec<Stored>, StorageError> {
                Ok(insert_within(self, storage, owner, messages, Asked::Nothing).await?.stored)
            }

            async fn store_watched(
                &mut self,
                storage: &Postgres,
                owner: &Owner,
                messages: &[NewOutgoing],
            ) -> Result<(Vec<Stored>, Option<TransactionId>), StorageError> {
                let inserted = insert_within(self, storage, owner, messages, Asked::Transaction).await?;
                Ok((inserted.stored, inserted.transaction))
            }
        }
    };
}

watched!(Transaction<'_, sqlx::Postgres>);
watched!(
    /// For those who write `BEGIN` and `COMMIT` themselves. Outside a transaction the messages are stored at once.
    PgConnection
);
watched!(
    /// For a handler that publishes in its own transaction; `Publisher` is the shorter way.
    PgTx
);
