//! Wakes a bus when another process or a plain transaction has left work. SQLite notifies no process, so we poll.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::error::StorageError;
use cap_adapter::storage::{Side, Wake};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::connections::pools::Connections;
use crate::write::work_left::Signals;

/// How often the counters are read: two rows, from memory.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// Listens until cancelled: work of this process wakes the bus at once, that of others within [`POLL_EVERY`].
pub(crate) async fn listen(
    connections: &Connections,
    signals: &Signals,
    wake: &Wake,
    cancelled: &CancellationToken,
) {
    let _listening = Arc::clone(&connections.file).listen(wake.clone());
    // Nothing is lost when the poll is dropped: it has no state but what it has seen.
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = poll(connections, signals, wake) => {}
    }
}

async fn poll(connections: &Connections, signals: &Signals, wake: &Wake) {
    // None: something may have been missed, so that both sides are woken.
    let mut seen: Option<[i64; 2]> = None;
    let mut has_failed = false;
    loop {
        match read(connections, signals).await {
            Ok(counts) => {
                for (at, side) in [Side::Outbox, Side::Inbox].into_iter().enumerate() {
                    if seen.is_none_or(|seen| seen[at] != counts[at]) {
                        wake.wake(side);
                    }
                }
                (seen, has_failed) = (Some(counts), false);
            }
            Err(error) => {
                if !has_failed {
                    tracing::warn!(%error, "polling for messages of other processes failed, retrying");
                }
                (seen, has_failed) = (None, true);
            }
        }
        sleep(POLL_EVERY).await;
    }
}

async fn read(connections: &Connections, signals: &Signals) -> Result<[i64; 2], StorageError> {
    let mut session = connections.reader("looking for work").await?;
    session.run(|connection| signals.read(connection)).await
}
