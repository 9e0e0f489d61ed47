//! The suites that every storage, and every storage in SQL, passes.

use std::time::Duration;

use cap_conformance::sql::SqlFixture;
use cap_conformance::storage::StorageFixture;
use cap_postgres::Postgres;
use sqlx::AssertSqlSafe;

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

impl SqlFixture for Fresh {
    fn table_prefix(&self) -> String {
        format!("\"{}\".", self.0.schema)
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
        format!("interval '{} microseconds'", span.as_micros())
    }

    fn now(&self) -> String {
        "clock_timestamp()".to_owned()
    }

    fn seconds(&self, difference: &str) -> String {
        format!("round(extract(epoch FROM {difference}))::bigint")
    }

    fn seconds_in_views(&self, from: &str, to: &str) -> String {
        format!("round(extract(epoch FROM {to} - {from}))::bigint")
    }

    fn body(&self, bytes: usize) -> String {
        format!("convert_to(repeat('x', {bytes}), 'UTF8')")
    }
}

mod every_storage {
    cap_conformance::storage_suite!(super::fresh);
}

mod storage_in_sql {
    cap_conformance::sql_storage_suite!(super::fresh);
}
