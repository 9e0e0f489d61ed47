//! Deadlines of calls to the broker.

use std::future::Future;

use cap_adapter::error::TransportError;
use tokio::time::{Instant, timeout_at};

use crate::error::unavailable;

/// Waits for a call to the broker, but no longer than it may take.
pub(crate) async fn before<T>(
    deadline: Instant,
    what: &str,
    call: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    match timeout_at(deadline, call).await {
        Ok(result) => result,
        Err(_) => Err(unavailable(format!("{what} took longer than confirm_timeout allows"))),
    }
}
