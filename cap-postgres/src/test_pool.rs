//! A pool on the server of the tests. Tests only.

use sqlx::PgPool;

pub(crate) fn pool() -> PgPool {
    let url = std::env::var("DATABASE_URL");
    PgPool::connect_lazy(&url.unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/test".to_owned()))
        .unwrap()
}
