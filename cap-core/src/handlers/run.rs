//! Runs a handler once: in its tracing span, with its timeout, and with panics caught.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use cap_adapter::engine::panic_text;
use cap_adapter::{Delivery, HandlerError};
use futures_util::FutureExt;
use tokio::time::timeout;
use tracing::Instrument;

use super::layer::Next;
use super::registration::Member;
use super::reply::Outcome;
use crate::message::headers::names;
use crate::message::is_trace_parent;
use crate::publish::attempt_data::AttemptData;

/// Runs the layers and the handler for one attempt. Panics and timeouts become errors.
pub(crate) async fn run_handler(member: &Member, next: Next, delivery: &Delivery) -> Outcome {
    let span = tracing::info_span!(
        "cap.handle",
        message_id = delivery.message_id().as_str(),
        topic = delivery.topic(),
        group = delivery.group(),
        attempt = delivery.attempt(),
        // Validated, because a sender writes it and it appears in every log line of the span.
        traceparent =
            delivery.message().headers.get(names::TRACE_PARENT).filter(|text| is_trace_parent(text)),
    );
    let given = delivery.clone();
    // Called within the future whose panics are caught, since a layer may panic before it returns its own future.
    let handler = async move { next.run(given).await };
    let timed = async {
        match member.timeout {
            None => handler.await,
            Some(limit) => timeout(limit, handler).await.unwrap_or_else(|_| Err(too_long(limit))),
        }
    };
    let caught = AssertUnwindSafe(timed.instrument(span)).catch_unwind();
    let outcome = member
        .activity
        .follow(caught)
        .await
        .unwrap_or_else(|panic| Err(HandlerError::failed(panic_text("the handler", &*panic))));
    // From here on its publishes are taken: a task that it has spawned can no longer publish with its success.
    if let Some(data) = AttemptData::of(delivery) {
        data.end();
    }
    outcome
}

fn too_long(limit: Duration) -> HandlerError {
    HandlerError::failed(format!("the handler took longer than {}", humantime::format_duration(limit)))
        .outage()
}
