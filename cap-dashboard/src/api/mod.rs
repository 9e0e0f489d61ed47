//! The JSON API: paths and shapes of .NET CAP, and our own under `/v1`.

mod cap;
mod v1;

use std::sync::Arc;

use axum::Router;

use crate::request::Problem;
use crate::web::App;

/// The routes below `/api`.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .merge(cap::routes())
        .nest("/v1", v1::routes())
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::WrongMethod)
}
