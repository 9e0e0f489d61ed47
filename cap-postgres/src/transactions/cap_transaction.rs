//! Publishes inside a transaction of the application that the bus has begun.

use std::fmt;
use std::ops::{Deref, DerefMut};

use cap_adapter::error::StorageError;
use cap_adapter::faults::point;
use cap_adapter::storage::{NewOutgoing, Owner, Stored};
use cap_adapter::{AfterCommit, Bus, Within};
use sqlx::{PgConnection, PgPool, Row as _, Transaction};

use crate::storage::postgres::Postgres;
use crate::transactions::application_connections::{begin_whole, roll_back, roll_back_later};
use crate::transactions::plain_transaction::insert_within;
use crate::write::outgoing_row::{Asked, Inserted};

/// Begins a transaction that the bus knows: what is published within it is sent as soon as it is committed.
///
/// The pool may be any of the same database. A plain `sqlx::Transaction` can be published in too; its messages are sent
/// a moment later, since the bus has to look whether it has committed: after a millisecond, then at intervals of a quarter
/// of the transaction's age, a second at most. Neither announces anything by `NOTIFY` within the transaction, whose commit
/// would wait for all other commits that do.
///
/// Keep a transaction short in which a message with an id of your own is published: until it ends it is not known whether
/// the id is taken, and a node that publishes it a second time waits, with everything else that it has to store.
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
        known: Known::None,
    })
}

/// A transaction of the application whose messages are dispatched when it is committed; see [`begin`].
///
/// Dropping it rolls back, as with `sqlx::Transaction`; what was published within it is not sent.
///
/// It dereferences to `PgConnection`: functions of yours fit if they take `&mut PgConnection` or `impl PgExecutor<'_>`, called
/// with `&mut *tx`. Those that take `&mut sqlx::Transaction<'_, Postgres>` are called with [`as_sqlx`](Self::as_sqlx).
pub struct CapTransaction {
    /// There until it is committed, rolled back or dropped.
    transaction: Option<Transaction<'static, sqlx::Postgres>>,
    pool: PgPool,
    /// There until the commit.
    after_commit: Option<AfterCommit>,
    /// How many messages were stored.
    stored: i32,
    known: Known,
}

/// What is known of the messages that were stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// There are none.
    None,
    /// They are all part of the transaction, which has not failed.
    AllThere,
    /// They were, before the caller did something else.
    PerhapsThere,
    /// Some were undone with a savepoint.
    SomeGone,
}

impl CapTransaction {
    /// Commits, and gives the messages to the relay. It does not wait for the broker.
    ///
    /// # Errors
    ///
    /// As `Transaction::commit`, and when something was published but a statement had failed since: PostgreSQL then
    /// rolls back silently.
    /// After a connection lost during the commit it is not known whether it took place; if it did, the messages are sent.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        let known = self.known;
        if matches!(known, Known::PerhapsThere | Known::SomeGone) {
            let counted = counted(&mut self).await?;
            if known == Known::PerhapsThere && counted == self.stored {
                self.known = Known::AllThere;
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
        if self.known == Known::AllThere {
            after_commit.committed();
        } else {
            after_commit.committed_in_part();
        }
        Ok(())
    }

    /// The transaction as sqlx has it, for functions that take one.
    ///
    /// ```no_run
    /// # async fn example(cap: cap_core::Cap, pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
    /// async fn insert(tx: &mut sqlx::Transaction<'_, sqlx::Postgres>, id: i64) -> sqlx::Result<()> {
    ///     sqlx::query("INSERT INTO orders (id) VALUES ($1)").bind(id).execute(&mut **tx).await.map(drop)
    /// }
    ///
    /// let mut tx = cap_postgres::begin(&cap, &pool).await?;
    /// insert(tx.as_sqlx(), 7).await?;
    /// cap.publish("order.placed", &7).within(&mut tx).await?;
    /// tx.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[allow(clippy::expect_used, clippy::missing_panics_doc, reason = "see TRANSACTION")]
    pub fn as_sqlx(&mut self) -> &mut Transaction<'static, sqlx::Postgres> {
        self.touched();
        self.transaction.as_mut().expect(TRANSACTION)
    }

    /// The caller may do something that undoes messages, such as rolling back to a savepoint.
    fn touched(&mut self) {
        if self.known == Known::AllThere {
            self.known = Known::PerhapsThere;
        }
    }

    /// Rolls back. Nothing that was published within it is sent.
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

/// Whether the server itself has answered that it did not commit, and not that it or the connection ends (classes 08 and 57) or
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
const TRANSACTION: &str = "a CapTransaction has its transaction until it ends";

impl Deref for CapTransaction {
    type Target = PgConnection;

    #[allow(clippy::expect_used, reason = "see TRANSACTION")]
    fn deref(&self) -> &PgConnection {
        self.transaction.as_ref().expect(TRANSACTION)
    }
}

impl DerefMut for CapTransaction {
    #[allow(clippy::expect_used, reason = "see TRANSACTION")]
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.touched();
        self.transaction.as_mut().expect(TRANSACTION)
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
        // The future may be dropped before the answer is here.
        let before = std::mem::replace(&mut self.known, Known::SomeGone);
        let Inserted { stored, counted, .. } =
            insert_within(self, storage, owner, messages, Asked::Count).await?;
        let new = stored.iter().filter(|stored| **stored == Stored::New).count();
        self.stored = self.stored.saturating_add(i32::try_from(new).unwrap_or(i32::MAX));
        if before != Known::SomeGone && counted == self.stored {
            self.known = Known::AllThere;
        }
        Ok(stored)
    }

    fn after_commit(&mut self) -> Option<&mut AfterCommit> {
        self.after_commit.as_mut()
    }
}
