//! The pages. Each file has the handlers of one page and what its template shows.

mod act;
mod assets;
mod audit;
mod charts;
mod edit;
mod failures;
mod lines;
mod list;
mod live;
mod login;
mod message;
mod overview;
mod preferences;
mod preview;
mod problem_page;
mod search;
mod shell;
mod story;
mod subscriptions;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

pub(crate) use problem_page::problem_page;

use crate::web::App;

/// The routes of all pages.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(overview::show))
        .route("/live", get(live::stream))
        .route("/published", get(list::published))
        .route("/received", get(list::received))
        .route("/delayed", get(list::delayed))
        .route("/parked", get(list::parked))
        .route("/message/{side}/{id}", get(message::show))
        .route("/message/{side}/{id}/payload", get(message::download))
        .route("/message/{side}/{id}/edit", get(edit::show).post(edit::save))
        .route("/preview", post(preview::show))
        .route("/act", post(act::perform))
        .route("/failures", get(failures::show))
        .route("/search", get(search::show))
        .route("/story", get(story::show))
        .route("/subscriptions", get(subscriptions::show))
        .route("/audit", get(audit::show))
        .route("/login", get(login::show).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/preferences", post(preferences::set))
        .route("/assets/{name}", get(assets::get))
}
