//! A message of the test, with its payload decoded.

use cap_core::message::Headers;
use cap_core::monitor::Row;
use cap_core::storage::Reason;
use serde::de::DeserializeOwned;

/// A stored message, with its payload as a value of the test's type.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Record<T> {
    /// The payload.
    pub payload: T,
    /// The sender's id of the message.
    pub message_id: String,
    /// The full topic, with its prefix if there is one.
    pub topic: String,
    /// The full name of the group that received it; empty for a published message.
    pub group: String,
    /// The headers.
    pub headers: Headers,
    /// How many attempts failed.
    pub failed_attempts: u32,
    /// The last error, also after a later success.
    pub last_error: Option<String>,
    /// Why it is parked, or another reason for its state.
    pub reason: Option<Reason>,
    /// The row id, for [`Cap::messages`](cap_core::Cap::messages).
    pub row_id: i64,
}

impl<T: DeserializeOwned> Record<T> {
    pub(crate) fn of(row: &Row) -> Self {
        let payload = row.message.payload().unwrap_or_else(|error| {
            panic!(
                "the payload of {} is not a {}: {error}: {}",
                row.name,
                std::any::type_name::<T>(),
                row.message.content()
            )
        });
        Self {
            payload,
            message_id: row.message.id().unwrap_or_default().to_owned(),
            topic: row.name.clone(),
            group: row.group.to_string(),
            headers: row.message.headers.clone(),
            failed_attempts: row.attempts,
            last_error: row.last_error.clone(),
            reason: row.reason,
            row_id: row.id,
        }
    }
}
