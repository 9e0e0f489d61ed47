//! Metrics for Prometheus.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::data::{Recorder, StorageMetrics};
use crate::web::{App, Scraper};

/// The text format of Prometheus.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/metrics`: what waits in the storage, and what the application's recorder has. It needs the right to read, or the token
/// for metrics.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/metrics", get(show))
}

async fn show(_: Scraper, State(app): State<Arc<App>>) -> Response {
    let recorded = app.data.recorder.as_ref().map_or_else(String::new, Recorder::render);
    let stored = StorageMetrics::read(&app.data.operator).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "metrics without those of the storage");
        StorageMetrics::unreachable()
    });
    let text = join(recorded, &stored);
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response()
}

fn join(mut recorded: String, stored: &StorageMetrics) -> String {
    if !recorded.is_empty() && !recorded.ends_with('\n') {
        recorded.push('\n');
    }
    let stored = stored.text_beside(&recorded);
    recorded + &stored
}
