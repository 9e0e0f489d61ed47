//! Our own API: lists by key, one message with its attempts, acts, and a description of it all.

mod acts;
mod messages;
mod openapi;
mod overview;
mod shapes;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post, put};

use crate::web::App;

/// The routes below `/api/v1`.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/openapi.json", get(openapi::describe))
        .route("/overview", get(overview::show))
        .route("/audit", get(overview::audit))
        .route("/failures/{side}", get(messages::failures))
        .route("/messages/{side}", get(messages::list))
        .route("/messages/{side}/{id}", get(messages::show))
        .route("/messages/{side}/{id}/payload", put(acts::edit))
        .route("/messages/{side}/rerun", post(acts::rerun))
        .route("/messages/{side}/delete", post(acts::delete))
        .route("/messages/{side}/cancel", post(acts::cancel))
}
