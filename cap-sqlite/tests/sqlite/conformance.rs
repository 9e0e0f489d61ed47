//! The suites that every storage, and every storage in SQL, passes.

use std::time::Duration;

use cap_conformance::sql::SqlFixture;
use cap_conformance::storage::StorageFixture;
use cap_sqlite::Sqlite;
use sqlx::AssertSqlSafe;

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

impl SqlFixture for Fresh {
    fn table_prefix(&self) -> String {
        "cap_".to_owned()
    }

    async fn execute(&self, sql: &str) {
        self.0.execute(sql).await;
    }

    async fn numbers(&self, sql: &str) -> Vec<i64> {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&self.0.pool).await.unwrap()
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&self.0.pool).await.unwrap()
    }

    fn span(&self, span: Duration) -> String {
        span.as_micros().to_string()
    }

    fn now(&self) -> String {
        "CAST(unixepoch('subsec') * 1e6 AS INTEGER)".to_owned()
    }

    fn seconds(&self, difference: &str) -> String {
        format!("CAST(round(({difference}) / 1e6) AS INTEGER)")
    }

    fn seconds_in_views(&self, from: &str, to: &str) -> String {
        format!("CAST(round((julianday({to}) - julianday({from})) * 86400) AS INTEGER)")
    }

    fn body(&self, bytes: usize) -> String {
        format!("zeroblob({bytes})")
    }
}

mod every_storage {
    cap_conformance::storage_suite!(super::fresh);
}

mod storage_in_sql {
    cap_conformance::sql_storage_suite!(super::fresh);
}
