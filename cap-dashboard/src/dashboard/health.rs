//! Whether the dashboard and its storage work, for probes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

use crate::web::{App, Context};

/// `/health` and `/health/live`: this process answers. `/health/ready`: so does the storage, and the bus is up. Anyone gets
/// the bare status; reasons need the right to read.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/health", get(async || "OK"))
        .route("/health/live", get(async || "OK"))
        .route("/health/ready", get(ready))
}

async fn ready(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Arc<Context>>,
) -> (StatusCode, Json<Value>) {
    let reading = app.live.read().await;
    let bus_is_up = reading.health.as_ref().is_none_or(cap_core::Health::is_healthy);
    let is_ready = reading.error.is_none() && bus_is_up;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let name = if is_ready { "ready" } else { "not ready" };
    if context.visitor.is_err() {
        return (status, Json(json!({ "status": name })));
    }
    let components = reading.health.iter().flat_map(|health| [&health.storage, &health.transport]);
    let consumers = reading.health.iter().flat_map(|health| &health.groups).map(|group| &group.consumer);
    let down: Vec<Value> = components
        .chain(consumers)
        .filter(|component| !component.up)
        .map(|component| json!({ "component": component.name, "error": component.error }))
        .collect();
    (status, Json(json!({ "status": name, "storage": reading.error, "down": down })))
}
