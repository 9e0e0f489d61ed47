//! Messages as JSON for machines. Fields are added, never changed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cap_core::Message;
use cap_core::monitor::{FailedAttempt, Row};
use cap_core::storage::{Reason, Side, Status};
use serde_json::{Map, Value, json};

use crate::output::iso;

/// The stable name of a side.
pub(crate) fn side_name(side: Side) -> &'static str {
    match side {
        Side::Outbox => "published",
        Side::Inbox => "received",
    }
}

/// The stable name of a status.
pub(crate) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Scheduled => "scheduled",
        Status::Delayed => "delayed",
        Status::Retrying => "retrying",
        Status::Failed => "failed",
        Status::Succeeded => "succeeded",
        _ => "other",
    }
}

/// A message in a list, without headers and body.
pub(crate) fn summary(row: &Row) -> Value {
    json!({
        // Numbers beyond 2^53 are changed by many readers of JSON.
        "id": row.id.to_string(),
        "side": side_name(row.side),
        "message_id": row.message.id(),
        "version": row.version,
        "topic": row.name,
        "group": if row.side == Side::Inbox { Some(&*row.group) } else { None },
        "status": status_name(row.status),
        "reason": row.reason.map(Reason::as_str),
        "attempts": row.attempts,
        "reruns": row.reruns,
        "error": row.last_error,
        "added": iso(row.added),
        "due": row.due.map(iso),
        "expires": row.expires.map(iso),
        "node": row.owner,
    })
}

/// A message with everything.
pub(crate) fn message(row: &Row, attempts: &[FailedAttempt]) -> Value {
    let mut object = summary(row);
    object["headers"] = headers(&row.message);
    let (payload, encoding) = body(&row.message);
    object["payload"] = payload.into();
    object["payload_encoding"] = encoding.into();
    object["failed_attempts"] = attempts
        .iter()
        .map(|attempt| {
            json!({
                "number": attempt.number,
                "at": iso(attempt.at),
                "node": attempt.node,
                "error": attempt.error,
                "next": attempt.next.map(iso),
            })
        })
        .collect();
    object
}

pub(crate) fn headers(message: &Message) -> Value {
    let headers = message.headers.iter();
    Value::Object(headers.map(|(name, value)| (name.to_owned(), value.into())).collect::<Map<_, _>>())
}

/// The body as text, never read as numbers, and whether that is `text` or `base64`.
pub(crate) fn body(message: &Message) -> (String, &'static str) {
    match std::str::from_utf8(&message.body) {
        Ok(text) => (text.to_owned(), "text"),
        Err(_) => (STANDARD.encode(&message.body), "base64"),
    }
}
