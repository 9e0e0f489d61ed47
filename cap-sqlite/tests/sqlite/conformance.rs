//! The suite that every store passes.

use cap_conformance::storage::StorageFixture;
use cap_sqlite::Sqlite;

use crate::support::Database;

struct Fresh(Database);

impl StorageFixture for Fresh {
    type Storage = Sqlite;

    async fn open(&self) -> Sqlite {
        Sqlite::open(&self.0.path)
    }
}

async fn fresh() -> Fresh {
    Fresh(Database::empty())
}

cap_conformance::storage_suite!(fresh);
