//! Calls the application's failure callback, for one failure at a time.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::runtime::engine::Engine;
use crate::runtime::notifier::{FailedMessage, Notifications};
use crate::storage::RowOutcome;
use crate::writer::OutcomeQueue;

/// The timeout of a call, so that a callback that hangs does not stop all further notifications.
const CALLBACK_TIMEOUT: Duration = Duration::from_mins(1);

/// Calls `callback` for each failure, and records in the storage that an operator was notified. Ends when the bus drains
/// and no failure is left.
pub(crate) async fn run_failure_callback(
    engine: Arc<Engine>,
    outcomes: OutcomeQueue,
    mut notifications: Notifications,
    callback: impl Fn(FailedMessage) -> BoxFuture<'static, ()>,
) {
    let drain = engine.lifecycle.stop.relay.clone();
    while let Some(failed) = notifications.next(&drain).await {
        let (side, lease) = (failed.side, failed.lease);
        // The lease may have been lost while the failure was queued; if so, another node notifies the operator.
        if !engine.storage.leases.holds(side, lease) {
            continue;
        }
        failed.log(&engine.repeated);
        let call = AssertUnwindSafe(async { callback(failed).await }).catch_unwind();
        match tokio::time::timeout(CALLBACK_TIMEOUT, call).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                tracing::error!(row = lease.id, "on_failed callback panicked; it is not called again");
            }
            Err(_) => tracing::error!(
                row = lease.id,
                timeout = ?CALLBACK_TIMEOUT,
                "on_failed callback timed out; it is not called again"
            ),
        }
        outcomes.write(side, lease, RowOutcome::Notified).await;
    }
}
