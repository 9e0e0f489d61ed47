//! Publishing inside a transaction of the application's.

use std::fmt;
use std::ops::{Deref, DerefMut};

use cap_core::error::StorageError;
use cap_core::faults::point;
use cap_core::storage::{NewOutgoing, Owner, Stored};
use cap_core::{Cap, Handover, Within};
use sqlx::{PgConnection, PgPool, Transaction};
use tracing::Instrument as _;

use crate::insert;
use crate::storage::Postgres;

const OPERATION: &str = "storing messages in the caller's transaction";

/// Begins a transaction that knows the bus: what is published within it leaves as soon as it is committed.
///
/// The pool may be any of the same database. A plain `sqlx::Transaction` can be published in too; its messages leave
/// a moment later, since they are announced to all nodes and claimed by one.
///
/// Keep a transaction short in which a message with an id of your own is published: until it ends nobody can tell whether
/// the id is taken, and who publishes it a second time waits, with everything else that their node has to store.
///
/// What is published within a transaction is stored in the role that it has at that moment: after `SET LOCAL ROLE ..` the
/// new role needs `USAGE` on the schema, and `SELECT` and `INSERT` on its tables `outbox` and `outbox_state`.
///
/// # Errors
///
/// As `pool.begin()`.
///
/// ```no_run
/// # async fn example(cap: cap_core::Cap, pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
/// let mut tx = cap_postgres::begin(&cap, &pool).await?;
/// sqlx::query("INSERT INTO orders (id) VALUES (7)").execute(&mut *tx).await?;
/// cap.publish("order.placed", &7).within(&mut tx).await?;
/// tx.commit().await?;
/// # Ok(())
/// # }
/// ```
pub async fn begin(cap: &Cap, pool: &PgPool) -> Result<CapTransaction, sqlx::Error> {
    let transaction = begin_whole(pool, "BEGIN").await?;
    Ok(CapTransaction { transaction, handover: cap.handover(), stored: 0, told: Told::Nothing })
}

/// Begins a transaction, or none, also when its future is dropped: a `BEGIN` whose answer nobody waits for would leave
/// its connection in a transaction that the driver knows nothing of, and all that the application then does on it would
/// be lost. Hence a task that is never broken off; a transaction that nobody waits for any more is dropped as it is
/// begun, and so rolled back. The task lasts as long as the pool takes for a connection, and one round trip.
pub(crate) async fn begin_whole(
    pool: &PgPool,
    statement: &'static str,
) -> Result<Transaction<'static, sqlx::Postgres>, sqlx::Error> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await }.in_current_span());
    begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

/// A transaction of the application's that hands its messages to the bus when it is committed; see [`begin`].
///
/// Dropping it rolls back, as with `sqlx::Transaction`; what was published within it then reaches nobody.
pub struct CapTransaction {
    transaction: Transaction<'static, sqlx::Postgres>,
    handover: Handover,
    /// How many messages were stored.
    stored: i32,
    told: Told,
}

/// What is known of the messages that were stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// There are none.
    Nothing,
    /// They are all part of the transaction, which has not failed.
    AllThere,
    /// They were, before the caller did something else.
    PerhapsThere,
    /// Some were undone with a savepoint.
    SomeGone,
}

impl CapTransaction {
    /// Commits, and hands the messages to the bus. It does not wait for the broker.
    ///
    /// # Errors
    ///
    /// As `Transaction::commit`, and when something was published but a statement had failed since: PostgreSQL then
    /// rolls back, without a word.
    /// After a connection lost during the commit nobody knows whether it took place; if it did, the messages leave.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        if matches!(self.told, Told::PerhapsThere | Told::SomeGone) {
            let counted = counted(&mut self.transaction).await?;
            if self.told == Told::PerhapsThere && counted == self.stored {
                self.told = Told::AllThere;
            }
        }
        point("commit.before").await;
        // Should this future be dropped from here on, or the connection break, the bus looks whether they are stored.
        self.handover.committing();
        if let Err(error) = self.transaction.commit().await {
            if is_answer(&error) {
                self.handover.not_committed();
            }
            return Err(error);
        }
        point("commit.after").await;
        if self.told == Told::AllThere {
            self.handover.committed();
        } else {
            self.handover.committed_in_part();
        }
        Ok(())
    }

    /// Rolls back. Nothing that was published within it reaches anybody.
    ///
    /// # Errors
    ///
    /// As `Transaction::rollback`; the transaction is rolled back all the same when the connection is gone.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.transaction.rollback().await
    }
}

/// Whether the server itself has said that it did not commit, and not that it or the connection ends (classes 08 and 57) or
/// that it does not know (40003).
fn is_answer(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| !code.starts_with("08") && !code.starts_with("57") && code != "40003")
}

/// How many of the messages that were stored in this transaction are still part of it. The count is a setting of the
/// transaction, undone with a savepoint as the messages are. Fails if the transaction has.
async fn counted(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    let counted = "SELECT pg_catalog.concat('0', pg_catalog.current_setting('cap.stored', true))::integer";
    sqlx::query_scalar(counted).fetch_one(connection).await
}

impl Deref for CapTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl DerefMut for CapTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        if self.told == Told::AllThere {
            self.told = Told::PerhapsThere;
        }
        &mut self.transaction
    }
}

impl fmt::Debug for CapTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapTransaction").field("handover", &self.handover).finish_non_exhaustive()
    }
}

impl Within<Postgres> for CapTransaction {
    async fn store(
        &mut self,
        storage: &Postgres,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        // Until the answer is here, the caller may go on without it.
        let before = std::mem::replace(&mut self.told, Told::SomeGone);
        let rows: Vec<&NewOutgoing> = messages.iter().collect();
        let stored = insert::outgoing_counted(&mut self.transaction, storage.writing(owner), &rows).await;
        let (stored, counted) = stored.map_err(|fault| fault.into_error(OPERATION, storage.target()))?;
        let new = stored.iter().filter(|stored| **stored == Stored::New).count();
        self.stored = self.stored.saturating_add(i32::try_from(new).unwrap_or(i32::MAX));
        if before != Told::SomeGone && counted == self.stored {
            self.told = Told::AllThere;
        }
        Ok(stored)
    }

    fn handover(&mut self) -> Option<&mut Handover> {
        Some(&mut self.handover)
    }
}

/// Stores messages on a connection whose commit the bus does not learn of: the nodes are told by `NOTIFY` when it
/// happens.
pub(crate) async fn store_unheld(
    connection: &mut PgConnection,
    storage: &Postgres,
    owner: &Owner,
    messages: &[NewOutgoing],
) -> Result<Vec<Stored>, StorageError> {
    let rows: Vec<&NewOutgoing> = messages.iter().collect();
    let stored = insert::outgoing(connection, storage.writing(owner), &rows).await;
    stored.map_err(|fault| fault.into_error(OPERATION, storage.target()))
}

impl Within<Postgres> for Transaction<'_, sqlx::Postgres> {
    async fn store(
        &mut self,
        storage: &Postgres,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        store_unheld(self, storage, owner, messages).await
    }
}

/// For those who write `BEGIN` and `COMMIT` themselves. Outside a transaction the messages are stored at once.
impl Within<Postgres> for PgConnection {
    async fn store(
        &mut self,
        storage: &Postgres,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        store_unheld(self, storage, owner, messages).await
    }
}
