//! Publishes inside transactions whose commit the bus does not see: the messages are claimed.

use cap_adapter::Within;
use cap_adapter::error::StorageError;
use cap_adapter::storage::{NewOutgoing, Owner, Stored};
use sqlx::{Connection as _, SqliteConnection, Transaction};

use crate::connections::session::now;
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::storage::sqlite::Sqlite;
use crate::transactions::open_transaction::Open;
use crate::write::work_left::Work;

const OPERATION: &str = "storing messages in the caller's transaction";

/// Stores messages in a transaction of ours, if it is there still.
pub(crate) async fn store_in(
    open: &mut Open,
    storage: &Sqlite,
    owner: &Owner,
    messages: &[NewOutgoing],
) -> Result<Vec<Stored>, StorageError> {
    let stored = async {
        open.check().await?;
        store_together(open.connection_mut(), storage, owner, messages).await
    };
    stored.await.map_err(|fault| fault.into_error(OPERATION, &storage.shared().connections.target))
}

/// Stores messages on a connection, all of them or none: in a savepoint, or in a transaction if there is none.
async fn store_together(
    connection: &mut SqliteConnection,
    storage: &Sqlite,
    owner: &Owner,
    messages: &[NewOutgoing],
) -> Result<Vec<Stored>, Fault> {
    let mut savepoint = connection.begin().await?;
    let stored = insert(&mut savepoint, storage, owner, messages).await?;
    savepoint.commit().await?;
    Ok(stored)
}

/// As [`store_together`] on a connection on which the caller has written `BEGIN`, which the driver does not know.
async fn store_by_hand(
    connection: &mut SqliteConnection,
    storage: &Sqlite,
    owner: &Owner,
    messages: &[NewOutgoing],
) -> Result<Vec<Stored>, Fault> {
    sqlx::raw_sql("SAVEPOINT cap_within").execute(&mut *connection).await?;
    let stored = insert(connection, storage, owner, messages).await;
    if stored.is_err() {
        sqlx::raw_sql("ROLLBACK TO cap_within").execute(&mut *connection).await?;
    }
    sqlx::raw_sql("RELEASE cap_within").execute(connection).await?;
    stored
}

async fn insert(
    connection: &mut SqliteConnection,
    storage: &Sqlite,
    owner: &Owner,
    messages: &[NewOutgoing],
) -> Result<Vec<Stored>, Fault> {
    let rows: Vec<&NewOutgoing> = messages.iter().collect();
    let statements = &storage.shared().statements.write;
    let mut work = Work::default();
    let writing = Writing { owner, now: now() };
    let stored = statements.outgoing.insert(connection, writing, &rows, &mut work).await?;
    work.announce(connection, &statements.signals).await?;
    Ok(stored)
}

async fn store_on(
    connection: &mut SqliteConnection,
    storage: &Sqlite,
    owner: &Owner,
    messages: &[NewOutgoing],
) -> Result<Vec<Stored>, StorageError> {
    let stored = match store_together(connection, storage, owner, messages).await {
        Err(fault) if fault.is_within_transaction() => {
            store_by_hand(connection, storage, owner, messages).await
        }
        stored => stored,
    };
    stored.map_err(|fault| fault.into_error(OPERATION, &storage.shared().connections.target))
}

impl Within<Sqlite> for Transaction<'_, sqlx::Sqlite> {
    async fn store(
        &mut self,
        storage: &Sqlite,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        store_on(self, storage, owner, messages).await
    }
}

/// For those who write `BEGIN` and `COMMIT` themselves. Outside a transaction the messages are stored at once.
impl Within<Sqlite> for SqliteConnection {
    async fn store(
        &mut self,
        storage: &Sqlite,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        store_on(self, storage, owner, messages).await
    }
}
