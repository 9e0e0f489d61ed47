//! CAP's dashboard API: its paths, parameters and shapes, so that its front end and tools read from us.
//!
//! Where CAP has a hole, we differ: reading needs the right to, a page or a body that is not valid gets 400 instead of 500, and
//! what does not belong to a node of ours is never called.

mod acts;
mod content;
mod info;
mod lists;
mod totals;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::web::App;

/// The routes at CAP's paths.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/meta", get(info::meta))
        .route("/stats", get(info::stats))
        .route("/health", get(async || "OK"))
        .route("/nodes", get(info::nodes))
        .route("/list-ns", get(info::nodes))
        .route("/list-svc/{namespace}", get(info::nodes))
        .route("/ping", get(info::ping))
        .route("/subscriber", get(info::subscriber))
        .route("/metrics-history", get(info::history))
        .route("/published/message/{id}", get(content::published))
        .route("/received/message/{id}", get(content::received))
        .route("/published/{status}", get(lists::published))
        .route("/received/{status}", get(lists::received))
        .route("/published/requeue", post(acts::requeue))
        .route("/published/delete", post(acts::delete_published))
        .route("/received/reexecute", post(acts::reexecute))
        .route("/received/delete", post(acts::delete_received))
}
