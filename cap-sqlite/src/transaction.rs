//! Publishing inside a transaction of the application's.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use cap_adapter::error::StorageError;
use cap_adapter::faults::point;
use cap_adapter::storage::{NewOutgoing, Owner, Stored};
use cap_adapter::{AfterCommit, Bus, Within};
use sqlx::{Connection as _, SqliteConnection, SqlitePool, Transaction};
use tokio::time::timeout;

use crate::error::Fault;
use crate::file::{File, Turn};
use crate::insert::{self, Writing};
use crate::session::{BEGIN, now};
use crate::storage::Sqlite;
use crate::work::Work;

const OPERATION: &str = "storing messages in the caller's transaction";

/// How long a transaction waits for a connection and the lock, once it is its turn.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The message, if it is there.
pub(crate) const STORED: &str = "SELECT 1 FROM {prefix}outbox WHERE id = ?1";

/// Begins a transaction that knows the bus: what is published within it leaves as soon as it is committed.
///
/// The pool may be any of the same file. It takes the write lock at once (`BEGIN IMMEDIATE`), when it is its turn, and
/// the bus itself cannot store a message before it ends: keep it short, and await nothing of the bus in it but
/// `within`.
///
/// A plain `sqlx::Transaction` can be published in too; its messages leave a moment later, since they are claimed by a
/// node that comes by. Begin it with `pool.begin_with("BEGIN IMMEDIATE")`: one that reads before it writes can be refused
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

/// A transaction that writes, on a connection of the application's, and its turn.
pub(crate) struct Open {
    transaction: Transaction<'static, sqlx::Sqlite>,
    /// Dropped after the transaction.
    _turn: Turn,
}

impl Open {
    pub(crate) async fn begin(pool: &SqlitePool) -> Result<Self, Fault> {
        let turn = File::of(pool.connect_options().get_filename()).turn().await?;
        let begun = timeout(BEGIN_TIMEOUT, begin_on_sound_connection(pool)).await;
        let transaction = begun.unwrap_or_else(|_| Err(Fault::no_answer(BEGIN_TIMEOUT)))?;
        Ok(Self { transaction, _turn: turn })
    }

    pub(crate) fn connection(&self) -> &SqliteConnection {
        &self.transaction
    }

    pub(crate) fn connection_mut(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// That the transaction is still there. After an error such as a full disk, or an `ON CONFLICT ROLLBACK`, SQLite may
    /// have rolled it back; whatever is done then would count at once, and alone.
    pub(crate) async fn check(&mut self) -> Result<(), Fault> {
        let probe = sqlx::raw_sql("BEGIN").execute(&mut *self.transaction).await.map_err(Fault::from);
        match probe {
            // Begun anew, so that the driver's rollback has something to roll back.
            Ok(_) => Err(Fault::Refused(
                "SQLite has rolled the transaction back, after an error that the caller has not looked at"
                    .to_owned(),
            )),
            Err(fault) if fault.is_within_transaction() => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    pub(crate) async fn commit(self) -> Result<(), Fault> {
        Ok(self.transaction.commit().await?)
    }

    pub(crate) async fn rollback(mut self) -> Result<(), Fault> {
        // Whether there is a transaction or not: now there is one.
        let _ = self.check().await;
        Ok(self.transaction.rollback().await?)
    }
}

/// Begins on a connection that the driver does not take to be in a transaction, as it does for ever once SQLite has ended
/// one by itself and its owner has merely dropped it.
async fn begin_on_sound_connection(pool: &SqlitePool) -> Result<Transaction<'static, sqlx::Sqlite>, Fault> {
    loop {
        match pool.begin_with(BEGIN).await {
            Err(sqlx::Error::InvalidSavePointStatement) => {
                let connection = pool.acquire().await?;
                if connection.is_in_transaction() {
                    connection.close().await?;
                }
            }
            begun => return Ok(begun?),
        }
    }
}

/// A transaction of the application's that hands its messages to the bus when it is committed; see [`begin`].
///
/// Dropping it rolls back, as with `sqlx::Transaction`; what was published within it then reaches nobody.
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
    /// Commits, and hands the messages to the bus. It does not wait for the broker.
    ///
    /// # Errors
    ///
    /// As `Transaction::commit`, and when SQLite has rolled the transaction back after an earlier error.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        let are_all_there = self.check().await;
        let are_all_there = match are_all_there {
            Ok(are_all_there) => are_all_there,
            Err(fault) => {
                // That error says more than one of the rollback.
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

    /// Rolls back. Nothing that was published within it reaches anybody.
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
        let there = self
            .stored
            .get_or_insert_with(|| StoredHere { ids: Vec::new(), look: storage.statements().stored.clone() });
        let new = messages.iter().zip(&stored).filter(|(_, stored)| **stored == Stored::New);
        there.ids.extend(new.map(|(message, _)| message.id));
        Ok(stored)
    }

    fn after_commit(&mut self) -> Option<&mut AfterCommit> {
        Some(&mut self.after_commit)
    }
}

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
    stored.await.map_err(|fault| fault.into_error(OPERATION, storage.target()))
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
    let statements = storage.statements();
    let mut work = Work::default();
    let writing = Writing { statements, owner, now: now() };
    let stored = insert::outgoing(connection, writing, &rows, &mut work).await?;
    work.announce(connection, statements).await?;
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
    stored.map_err(|fault| fault.into_error(OPERATION, storage.target()))
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
