//! SQLite, in a file of the test's own. Time passes by moving everything that is stored into the past.

use std::path::PathBuf;
use std::time::Duration;

use cap_core::Within as _;
use cap_core::error::StorageError;
use cap_core::storage::{NewOutgoing, Owner, Storage as _, Stored};
use cap_sqlite::Sqlite;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqliteSynchronous};

use crate::Subject;

/// A store in a file of the system's folder for such files. Each history begins with [`clear`](Self::clear), and the last
/// ends with [`remove`](Self::remove).
#[derive(Debug)]
pub struct File {
    folder: PathBuf,
    pool: SqlitePool,
    store: Sqlite,
}

impl File {
    /// Makes a file with the tables in it.
    ///
    /// # Errors
    ///
    /// When there is no place for it.
    pub async fn new() -> Result<Self, sqlx::Error> {
        let folder = std::env::temp_dir().join(format!("cap-model-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&folder)?;
        let options = SqliteConnectOptions::new().filename(folder.join("cap.db")).create_if_missing(true);
        // Nothing crashes here, so nothing has to wait for the disk.
        let pool = SqlitePool::connect_with(options.synchronous(SqliteSynchronous::Off)).await?;
        let store = Sqlite::new(pool.clone());
        store.initialize().await.map_err(sqlx::Error::config)?;
        Ok(Self { folder, pool, store })
    }

    /// Empties the tables.
    ///
    /// # Errors
    ///
    /// When the file is gone.
    pub async fn clear(&self) -> Result<(), sqlx::Error> {
        self.execute(
            "DELETE FROM cap_outbox; DELETE FROM cap_inbox; DELETE FROM cap_outbox_state; DELETE FROM cap_inbox_state;
             DELETE FROM cap_attempts"
                .to_owned(),
        )
        .await
    }

    /// Deletes the file.
    ///
    /// # Errors
    ///
    /// When it is gone already.
    pub async fn remove(&self) -> std::io::Result<()> {
        self.pool.close().await;
        std::fs::remove_dir_all(&self.folder)
    }

    async fn execute(&self, text: String) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&self.pool).await?;
        Ok(())
    }
}

fn failed(error: &sqlx::Error) -> StorageError {
    StorageError::new(cap_core::error::StorageErrorKind::Unavailable, "SQLite", error.to_string())
}

impl Subject for File {
    type Store = Sqlite;

    const EXACT: bool = false;
    const COARSE: bool = true;

    fn store(&self) -> &Sqlite {
        &self.store
    }

    async fn pass(&self, time: Duration) -> Result<(), StorageError> {
        let span = time.as_micros();
        let text = format!(
            "UPDATE cap_outbox SET added = added - {span}; UPDATE cap_inbox SET added = added - {span};
             UPDATE cap_outbox_state SET due = due - {span}, expires = expires - {span};
             UPDATE cap_inbox_state SET due = due - {span}, expires = expires - {span}"
        );
        self.execute(text).await.map_err(|error| failed(&error))
    }

    async fn publish_within(
        &self,
        owner: &Owner,
        messages: &[NewOutgoing],
        commit: bool,
    ) -> Result<Vec<Stored>, StorageError> {
        let mut transaction = self.pool.begin().await.map_err(|error| failed(&error))?;
        let stored = transaction.store(&self.store, owner, messages).await?;
        let ended = if commit { transaction.commit().await } else { transaction.rollback().await };
        ended.map_err(|error| failed(&error))?;
        Ok(stored)
    }
}
