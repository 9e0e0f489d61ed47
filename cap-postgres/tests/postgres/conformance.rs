//! The suite that every store passes.

use cap_conformance::storage::StorageFixture;
use cap_postgres::Postgres;

use crate::support::{Database, url};

struct Fresh(Database);

impl StorageFixture for Fresh {
    type Storage = Postgres;

    async fn open(&self) -> Postgres {
        let pool = sqlx::PgPool::connect_lazy(&url()).unwrap();
        Postgres::new(pool).schema(&self.0.schema).connections(2)
    }
}

async fn fresh() -> Fresh {
    Fresh(Database::empty())
}

cap_conformance::storage_suite!(fresh);
