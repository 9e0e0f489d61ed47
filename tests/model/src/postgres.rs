//! PostgreSQL, in a schema of the test's own. Time passes by moving everything that is stored into the past.

use std::time::Duration;

use cap_core::Within as _;
use cap_core::error::StorageError;
use cap_core::storage::{NewOutgoing, Owner, Storage as _, Stored};
use cap_postgres::Postgres;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

use crate::Subject;

/// A store in PostgreSQL, at `DATABASE_URL`. Each history begins with [`clear`](Self::clear), and the last ends with
/// [`remove`](Self::remove).
#[derive(Debug)]
pub struct Server {
    schema: String,
    pool: PgPool,
    store: Postgres,
}

impl Server {
    /// Makes a schema with the tables in it.
    ///
    /// # Errors
    ///
    /// When the server is not there.
    pub async fn new() -> Result<Self, sqlx::Error> {
        let url = std::env::var("DATABASE_URL")
            .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/test".to_owned());
        // Nothing crashes here, so nothing has to wait for the disk.
        let options = url.parse::<PgConnectOptions>()?.options([("synchronous_commit", "off")]);
        let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await?;
        let schema = format!("cap_model_{:016x}", fastrand::u64(..));
        let store = Postgres::new(pool.clone()).schema(&schema).connections(1);
        store.initialize().await.map_err(sqlx::Error::config)?;
        Ok(Self { schema, pool, store })
    }

    /// Empties the tables.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn clear(&self) -> Result<(), sqlx::Error> {
        self.execute(
            "DELETE FROM {s}.outbox; DELETE FROM {s}.inbox; DELETE FROM {s}.outbox_state; DELETE FROM {s}.inbox_state;
             DELETE FROM {s}.attempts",
        )
        .await
    }

    /// Drops the schema.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn remove(&self) -> Result<(), sqlx::Error> {
        self.execute("DROP SCHEMA {s} CASCADE").await
    }

    async fn execute(&self, text: &str) -> Result<(), sqlx::Error> {
        // The schema's name is one that this file has made, of letters and digits.
        let text = text.replace("{s}", &self.schema);
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&self.pool).await?;
        Ok(())
    }
}

fn failed(error: &sqlx::Error) -> StorageError {
    StorageError::new(cap_core::error::StorageErrorKind::Unavailable, "PostgreSQL", error.to_string())
}

impl Subject for Server {
    type Store = Postgres;

    const EXACT: bool = false;
    const COARSE: bool = false;

    fn store(&self) -> &Postgres {
        &self.store
    }

    async fn pass(&self, time: Duration) -> Result<(), StorageError> {
        let hours = time.as_secs() / 3600;
        let text = format!(
            "UPDATE {{s}}.outbox SET added = added - interval '{hours} hours';
             UPDATE {{s}}.inbox SET added = added - interval '{hours} hours';
             UPDATE {{s}}.outbox_state SET due = due - interval '{hours} hours', expires = expires - interval '{hours} hours';
             UPDATE {{s}}.inbox_state SET due = due - interval '{hours} hours', expires = expires - interval '{hours} hours'"
        );
        self.execute(&text).await.map_err(|error| failed(&error))
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
