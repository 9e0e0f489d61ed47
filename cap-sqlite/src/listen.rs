//! Waiting for work that another process or a plain transaction has left. SQLite tells nobody, so we look.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::error::StorageError;
use cap_adapter::storage::{Side, Wake};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::storage::Sqlite;

/// How often the counters are looked at: two rows, read from memory.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Listens until cancelled. Work of this process is notified of at once, that of others within [`LOOK_EVERY`].
pub(crate) async fn listen(storage: &Sqlite, wake: &Wake, cancelled: &CancellationToken) {
    let _listening = Arc::clone(storage.file()).listen(wake.clone());
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = look(storage, wake) => {}
    }
}

async fn look(storage: &Sqlite, wake: &Wake) {
    // None: something may have been missed, so that both sides are woken.
    let mut seen: Option<[i64; 2]> = None;
    let mut is_told = false;
    loop {
        match announced(storage).await {
            Ok(counts) => {
                for (at, side) in [Side::Outbox, Side::Inbox].into_iter().enumerate() {
                    if seen.is_none_or(|seen| seen[at] != counts[at]) {
                        wake.wake(side);
                    }
                }
                (seen, is_told) = (Some(counts), false);
            }
            Err(error) => {
                if !is_told {
                    tracing::warn!(%error, "polling for messages of other processes failed, retrying");
                }
                (seen, is_told) = (None, true);
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn announced(storage: &Sqlite) -> Result<[i64; 2], StorageError> {
    let mut session = storage.reader("looking for work").await?;
    session
        .run(async |connection| {
            let counts: Vec<i64> =
                sqlx::query_scalar(storage.statements().announced.clone()).fetch_all(connection).await?;
            Ok([counts.first().copied().unwrap_or(0), counts.get(1).copied().unwrap_or(0)])
        })
        .await
}
