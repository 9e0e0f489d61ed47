//! A storage of the test: in memory, or a schema of its own in PostgreSQL.

use cap_core::Operator;
use cap_core::memory::MemoryStorage;
use cap_core::monitor::{Monitor as _, Row};
use cap_core::storage::{Owner, Side, Storage as _, WriteBatch};
use cap_postgres::Postgres;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};

/// A storage of the test.
pub(crate) enum Store {
    Memory(MemoryStorage),
    Postgres { storage: Postgres, pool: PgPool, schema: String },
}

impl Store {
    pub(crate) fn memory() -> Self {
        Self::Memory(MemoryStorage::new())
    }

    pub(crate) fn postgres() -> Self {
        let url = std::env::var("DATABASE_URL")
            .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/test".to_owned());
        let schema = format!("cap_test_{:016x}", fastrand::u64(..));
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(&url).unwrap();
        let storage = Postgres::new(pool.clone()).schema(&schema).connections(3);
        Self::Postgres { storage, pool, schema }
    }

    pub(crate) async fn operator(&self) -> Operator {
        match self {
            Self::Memory(storage) => Operator::open(storage.clone()).await.unwrap(),
            Self::Postgres { storage, .. } => Operator::open(storage.clone()).await.unwrap(),
        }
    }

    pub(crate) async fn write(&self, owner: &Owner, batch: &WriteBatch) {
        match self {
            Self::Memory(storage) => storage.write(owner, batch).await.map(drop).unwrap(),
            Self::Postgres { storage, .. } => storage.write(owner, batch).await.map(drop).unwrap(),
        }
    }

    pub(crate) async fn get(&self, side: Side, id: i64) -> Option<Row> {
        match self {
            Self::Memory(storage) => storage.get(side, id).await.unwrap(),
            Self::Postgres { storage, .. } => storage.get(side, id).await.unwrap(),
        }
    }
}

impl Drop for Store {
    /// Drops the schema, also when the test fails.
    fn drop(&mut self) {
        let Self::Postgres { schema, pool, .. } = self else { return };
        let options = pool.connect_options().as_ref().clone();
        let sql = AssertSqlSafe(format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE"));
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pool = PgPoolOptions::new().connect_with(options).await.unwrap();
                sqlx::query(sql).execute(&pool).await.unwrap();
            });
        });
        let _ = dropped.join();
    }
}
