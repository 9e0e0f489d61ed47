//! A transaction that has its turn to write, on a connection of the application.

use std::time::Duration;

use sqlx::{Connection as _, SqliteConnection, SqlitePool, Transaction};
use tokio::time::timeout;

use crate::connections::file::{File, Turn};
use crate::connections::session::BEGIN;
use crate::database::error::Fault;

/// How long a transaction waits for a connection and the lock, once it is its turn.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A transaction that writes, on a connection of the application, and its turn.
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

    pub(crate) fn transaction_mut(&mut self) -> &mut Transaction<'static, sqlx::Sqlite> {
        &mut self.transaction
    }

    /// Checks that the transaction is still there. After an error such as a full disk, or an `ON CONFLICT ROLLBACK`, SQLite may
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

/// Begins on a connection that the driver does not believe to be in a transaction, as it does for ever once SQLite has ended
/// one by itself and its owner has only dropped it.
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
