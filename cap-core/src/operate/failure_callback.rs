//! Calls the application's failure callback, one failure after the other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::runtime::engine::Engine;
use crate::runtime::notifier::{FailedMessage, Notifications};
use crate::storage::RowOutcome;
use crate::writer::OutcomeQueue;

/// A callback that takes longer is given up on, so that one that hangs does not silence the rest.
const LIMIT: Duration = Duration::from_mins(1);

/// Calls `callback` for each failure until the bus drains and none is left, and notes in the storage that an operator was
/// notified.
pub(crate) async fn run_failure_callback(
    engine: Arc<Engine>,
    outcomes: OutcomeQueue,
    mut notifications: Notifications,
    callback: impl Fn(FailedMessage) -> BoxFuture<'static, ()>,
) {
    let drain = engine.lifecycle.stop.relay.clone();
    while let Some(failed) = notifications.next(&drain).await {
        let (side, lease) = (failed.side, failed.lease);
        // While it waited its lease may have been lost: another node notifies, or has done so by now.
        if !engine.storage.leases.holds(side, lease) {
            continue;
        }
        failed.log(&engine.repeated);
        let call = AssertUnwindSafe(async { callback(failed).await }).catch_unwind();
        match tokio::time::timeout(LIMIT, call).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!(row = lease.id, "the on_failed callback panicked"),
            Err(_) => tracing::error!(row = lease.id, "the on_failed callback took longer than {LIMIT:?}"),
        }
        outcomes.write(side, lease, RowOutcome::Notified).await;
    }
}
