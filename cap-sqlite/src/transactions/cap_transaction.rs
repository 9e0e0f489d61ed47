//! Publishes inside a transaction of the application that the bus has begun.

use std::fmt;
use std::ops::{Deref, DerefMut};

use cap_adapter::error::StorageError;
use cap_adapter::faults::point;
use cap_adapter::storage::{NewOutgoing, Owner, Stored};
use cap_adapter::{AfterCommit, Bus, Within};
use sqlx::{SqliteConnection, SqlitePool, Transaction};

use crate::database::error::Fault;
use crate::storage::sqlite::Sqlite;
use crate::transactions::open_transaction::Open;
use crate::transactions::plain_transaction::store_in;

/// Begins a transaction that the bus knows: what is published within it is sent as soon as it is committed.
///
/// The pool may be any of the same file. It takes the write lock at once (`BEGIN IMMEDIATE`), when it is its turn, and
/// the bus itself cannot store a message before it ends: keep it short, and await nothing of the bus in it but
/// `within`.
///
/// A plain `sqlx::Transaction` can be published in too; its messages are sent a moment later, by the node that
/// claims them. Begin it with `pool.begin_with("BEGIN IMMEDIATE")`: one that reads before it writes can be refused
/// the lock.
///
/// # Errors
///
/// As `pool.begin_with(..)`, and when others have been writing for ten seconds.
///
/// ```no_run
/// # async fn example(cap: cap_core::Cap, pool: sqlx::SqlitePool) -> Result<(), Box<dyn std::error::Error>> {
/// let mut tx = cap_sqlite::begin(&cap, &pool).await?;
/// sqlx::query("INSERT INTO orders (id) VALUES (7)").execute(&mut *tx).await?;
/// cap.publish("order.placed", &7).within(&mut tx).await?;
/// tx.commit().await?;
/// # Ok(())
/// # }
/// ```
pub async fn begin(cap: &impl Bus, pool: &SqlitePool) -> Result<CapTransaction, sqlx::Error> {
    let open = Open::begin(pool).await.map_err(Fault::into_sqlx)?;
    Ok(CapTransaction { open, after_commit: cap.after_commit(), stored: None, is_touched: false })
}

/// A transaction of the application whose messages are dispatched when it is committed; see [`begin`].
///
/// Dropping it rolls back, as with `sqlx::Transaction`; what was published within it is not sent.
///
/// It dereferences to `SqliteConnection`: functions of yours fit if they take `&mut SqliteConnection` or
/// `impl SqliteExecutor<'_>`, called with `&mut *tx`. Those that take `&mut sqlx::Transaction<'_, Sqlite>` are called with
/// [`as_sqlx`](Self::as_sqlx).
pub struct CapTransaction {
    open: Open,
    after_commit: AfterCommit,
    stored: Option<StoredHere>,
    /// Whether the caller has done something since the first message was stored, such as going back to a savepoint.
    is_touched: bool,
}

/// The messages that were stored in a transaction, and how to look for them.
struct StoredHere {
    ids: Vec<i64>,
    look: sqlx::SqlStr,
}

impl CapTransaction {
    /// The transaction as sqlx has it, for functions that take one.
    pub fn as_sqlx(&mut self) -> &mut Transaction<'static, sqlx::Sqlite> {
        self.is_touched |= self.stored.is_some();
        self.open.transaction_mut()
    }

    /// Commits, and gives the messages to the relay. It does not wait for the broker.
    ///
    /// # Errors
    ///
    /// As `Transaction::commit`, and when SQLite has rolled the transaction back after an earlier error.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        let are_all_there = self.check().await;
        let are_all_there = match are_all_there {
            Ok(are_all_there) => are_all_there,
            Err(fault) => {
                // This error is more useful than one of the rollback.
                let _ = self.open.rollback().await;
                return Err(fault.into_sqlx());
            }
        };
        point("commit.before").await;
        // Should this future be dropped from here on, or the commit fail, the bus looks whether they are stored.
        self.after_commit.committing();
        self.open.commit().await.map_err(Fault::into_sqlx)?;
        point("commit.after").await;
        if are_all_there {
            self.after_commit.committed();
        } else {
            self.after_commit.committed_in_part();
        }
        Ok(())
    }

    /// Whether all messages that were stored are part of the transaction still. Fails if that is gone.
    async fn check(&mut self) -> Result<bool, Fault> {
        self.open.check().await?;
        if let (Some(StoredHere { ids, look }), true) = (&self.stored, self.is_touched) {
            for id in ids {
                let look = sqlx::query(look.clone()).bind(id);
                if look.fetch_optional(self.open.connection_mut()).await?.is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Rolls back. Nothing that was published within it is sent.
    ///
    /// # Errors
    ///
    /// As `Transaction::rollback`.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.open.rollback().await.map_err(Fault::into_sqlx)
    }
}

impl Deref for CapTransaction {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.open.connection()
    }
}

impl DerefMut for CapTransaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.is_touched |= self.stored.is_some();
        self.open.connection_mut()
    }
}

impl fmt::Debug for CapTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapTransaction").field("after_commit", &self.after_commit).finish_non_exhaustive()
    }
}

impl Within<Sqlite> for CapTransaction {
    async fn store(
        &mut self,
        storage: &Sqlite,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        let stored = store_in(&mut self.open, storage, owner, messages).await?;
        let there = self.stored.get_or_insert_with(|| StoredHere {
            ids: Vec::new(),
            look: storage.shared().statements.write.outgoing.stored.clone(),
        });
        let new = messages.iter().zip(&stored).filter(|(_, stored)| **stored == Stored::New);
        there.ids.extend(new.map(|(message, _)| message.id));
        Ok(stored)
    }

    fn after_commit(&mut self) -> Option<&mut AfterCommit> {
        Some(&mut self.after_commit)
    }
}
