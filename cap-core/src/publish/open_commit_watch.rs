//! Looks for the commits of plain transactions, and gives the relay what they have committed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::open_commits::Open;
use super::outbox::Outbox;
use super::pending_commit::PendingCommit;
use crate::error::StorageError;
use crate::runtime::backoff::Backoff;
use crate::storage::Side;

/// A look that takes longer is given up and tried again.
const LIMIT: Duration = Duration::from_secs(10);

/// Looks for messages in plain transactions until the relay drains; what is still open then is released with all else.
pub(crate) async fn run_open_commits(outbox: Arc<Outbox>) {
    let task = outbox.engine.lifecycle.stop.relay.clone();
    let looking = async {
        let mut backoff = Backoff::default();
        let mut last_announcement = Instant::now();
        loop {
            outbox.open_commits.wait(last_announcement).await;
            let mut result = look(&outbox).await;
            if outbox.open_commits.take_announcement(last_announcement) {
                last_announcement = Instant::now();
                result =
                    result.and(within_limit(&outbox, outbox.engine.storage.announce(Side::Outbox)).await);
            }
            match result {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    outbox.engine.storage.health.down(&error);
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    };
    task.run_until_cancelled(looking).await;
}

/// Looks at what is due, and hands over what is committed.
async fn look(outbox: &Arc<Outbox>) -> Result<(), StorageError> {
    let (transactions, rows) = outbox.open_commits.due();
    if transactions.is_empty() {
        return Ok(());
    }
    let looked = within_limit(outbox, outbox.engine.storage.look_for(&transactions, &rows)).await?;
    let rows = rows.into_iter().collect();
    for Open { entries, waiting, .. } in outbox.open_commits.looked(&transactions, &rows, &looked) {
        // Of an ended transaction a row that is not there was undone with it, or with a savepoint.
        let there = entries.into_iter().filter(|entry| looked.stored.contains(&entry.lease().id));
        PendingCommit::of(Arc::clone(outbox), there.collect()).committed();
        if let Some(due) = waiting {
            outbox.engine.storage.due.note(Side::Outbox, due.saturating_duration_since(Instant::now()));
            outbox.open_commits.announce();
        }
    }
    Ok(())
}

async fn within_limit<T>(
    outbox: &Outbox,
    call: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
    tokio::time::timeout(LIMIT, call).await.unwrap_or_else(|_| {
        Err(outbox.engine.storage.unavailable("looking for committed messages took too long"))
    })
}
