//! Publishing inside a transaction of the application's.

use std::fmt;
use std::ops::{Deref, DerefMut};

use cap_adapter::error::StorageError;
use cap_adapter::faults::point;
use cap_adapter::storage::{NewOutgoing, Owner, Stored, TransactionId};
use cap_adapter::{AfterCommit, Bus, Within};
use sqlx::{PgConnection, PgPool, Row as _, Transaction};

use crate::insert::{self, Asked, Inserted};
use crate::lent::{begin_whole, roll_back, roll_back_later};
use crate::pg_tx::PgTx;
use crate::storage::Postgres;

const OPERATION: &str = "storing messages in the caller's transaction";

/// Begins a transaction that knows the bus: what is published within it leaves as soon as it is committed.
///
/// The pool may be any of the same database. A plain `sqlx::Transaction` can be published in too; its messages leave
/// a moment later, since the bus has to look whether it has committed: after a millisecond, then at intervals of a quarter
/// of the transaction's age, a second at most. Neither announces anything by `NOTIFY` within the transaction, whose commit
/// would wait for all other commits that do.
///
/// Keep a transaction short in which a message with an id of your own is published: until it ends nobody can tell whether
/// the id is taken, and who publishes it a second time waits, with everything else that their node has to store.
///
/// What is published within a transaction is stored in the role that it has at that moment: after `SET LOCAL ROLE ..` the
/// new role needs `USAGE` on the schema, and `SELECT` and `INSERT` on its tables `outbox` and `outbox_state`.
///
/// A connection on which a transaction was not committed goes back to its pool only if its server takes writes: one that
/// is a standby by now, after a failover, is closed.
///
/// # Errors
///
/// As `pool.begin()`; `Configuration` if the pool is [`Postgres::pool`] and its provider of credentials has failed.
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
pub async fn begin(cap: &impl Bus, pool: &PgPool) -> Result<CapTransaction, sqlx::Error> {
    if let Some(storage) = cap.storage().downcast_ref::<Postgres>() {
        let refreshed = storage.refresh_if_own(pool).await;
        refreshed
            .map_err(|fault| sqlx::Error::Configuration(Box::new(fault.into_error("connecting", &""))))?;
    }
    let transaction = Some(begin_whole(pool, "BEGIN").await?);
    Ok(CapTransaction {
        transaction,
        pool: pool.clone(),
        after_commit: Some(cap.after_commit()),
        stored: 0,
        told: Told::Nothing,
    })
}

/// A transaction of the application's that hands its messages to the bus when it is committed; see [`begin`].
///
/// Dropping it rolls back, as with `sqlx::Transaction`; what was published within it then reaches nobody.
pub struct CapTransaction {
    /// There until it is committed, rolled back or dropped.
    transaction: Option<Transaction<'static, sqlx::Postgres>>,
    pool: PgPool,
    /// There until the commit.
    after_commit: Option<AfterCommit>,
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
        let told = self.told;
        if matches!(told, Told::PerhapsThere | Told::SomeGone) {
            let counted = counted(&mut self).await?;
            if told == Told::PerhapsThere && counted == self.stored {
                self.told = Told::AllThere;
            }
        }
        point("commit.before").await;
        // Should this future be dropped from here on, or the connection break, the bus looks whether they are stored.
        let Some(mut after_commit) = self.after_commit.take() else { return Ok(()) };
        after_commit.committing();
        if let Some(transaction) = self.transaction.take()
            && let Err(error) = transaction.commit().await
        {
            if is_answer(&error) {
                after_commit.not_committed();
            }
            return Err(error);
        }
        point("commit.after").await;
        if self.told == Told::AllThere {
            after_commit.committed();
        } else {
            after_commit.committed_in_part();
        }
        Ok(())
    }

    /// Rolls back. Nothing that was published within it reaches anybody.
    ///
    /// # Errors
    ///
    /// As `Transaction::rollback`; the transaction is rolled back all the same when the connection is gone.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        match self.transaction.take() {
            Some(transaction) => roll_back(transaction, &self.pool).await.map(drop),
            None => Ok(()),
        }
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
    // Unprepared, as poolers may have no prepared statements.
    sqlx::raw_sql(counted).fetch_one(connection).await?.try_get(0)
}

// The transaction leaves the value only as that is consumed or dropped.
const HELD: &str = "a CapTransaction holds its transaction until it ends";

impl Deref for CapTransaction {
    type Target = PgConnection;

    #[allow(clippy::expect_used, reason = "see HELD")]
    fn deref(&self) -> &PgConnection {
        self.transaction.as_ref().expect(HELD)
    }
}

impl DerefMut for CapTransaction {
    #[allow(clippy::expect_used, reason = "see HELD")]
    fn deref_mut(&mut self) -> &mut PgConnection {
        if self.told == Told::AllThere {
            self.told = Told::PerhapsThere;
        }
        self.transaction.as_mut().expect(HELD)
    }
}

/// Rolls back what was not committed. A connection to a server that takes no writes does not go back to its pool.
impl Drop for CapTransaction {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            roll_back_later(transaction, self.pool.clone());
        }
    }
}

impl fmt::Debug for CapTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapTransaction").field("after_commit", &self.after_commit).finish_non_exhaustive()
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
        let inserted =
            insert::outgoing_within(self, storage.writing_within(owner), &rows, Asked::Count).await;
        let Inserted { stored, counted, .. } =
            inserted.map_err(|fault| fault.into_error(OPERATION, storage.application_target()))?;
        let new = stored.iter().filter(|stored| **stored == Stored::New).count();
        self.stored = self.stored.saturating_add(i32::try_from(new).unwrap_or(i32::MAX));
        if before != Told::SomeGone && counted == self.stored {
            self.told = Told::AllThere;
        }
        Ok(stored)
    }

    fn after_commit(&mut self) -> Option<&mut AfterCommit> {
        self.after_commit.as_mut()
    }
}

/// Stores messages on a connection whose commit nobody tells the bus of, and says by which number PostgreSQL knows the
/// transaction.
pub(crate) async fn store_watched(
    connection: &mut PgConnection,
    storage: &Postgres,
    owner: &Owner,
    messages: &[NewOutgoing],
) -> Result<(Vec<Stored>, Option<TransactionId>), StorageError> {
    let rows: Vec<&NewOutgoing> = messages.iter().collect();
    let writing = storage.writing_within(owner);
    let inserted = insert::outgoing_within(connection, writing, &rows, Asked::Transaction).await;
    let inserted = inserted.map_err(|fault| fault.into_error(OPERATION, storage.application_target()))?;
    Ok((inserted.stored, inserted.transaction))
}

/// A connection of which the bus cannot know what becomes of its transaction.
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
                Ok(store_watched(self, storage, owner, messages).await?.0)
            }

            async fn store_watched(
                &mut self,
                storage: &Postgres,
                owner: &Owner,
                messages: &[NewOutgoing],
            ) -> Result<(Vec<Stored>, Option<TransactionId>), StorageError> {
                store_watched(self, storage, owner, messages).await
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
    /// What the bus itself publishes in it leaves with it; `Publisher` is the shorter way.
    PgTx
);
