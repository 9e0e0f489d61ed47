//! Checks which plain transactions have committed, and passes their messages to the relay.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::open_commits::Open;
use super::outbox::Outbox;
use super::pending_commit::PendingCommit;
use crate::error::StorageError;
use crate::runtime::backoff::Backoff;
use crate::storage::Side;

/// The timeout of a check, after which it is retried.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks for committed messages of plain transactions until the relay drains. The leases of messages whose transactions
/// are still open then are released at shutdown.
pub(crate) async fn run_open_commits(outbox: Arc<Outbox>) {
    let task = outbox.engine.lifecycle.stop.relay.clone();
    let checks = async {
        let mut backoff = Backoff::default();
        let mut last_announcement = Instant::now();
        loop {
            outbox.open_commits.wait(last_announcement).await;
            let mut result = check(&outbox).await;
            if outbox.open_commits.take_announcement(last_announcement) {
                last_announcement = Instant::now();
                let announced = within_timeout(&outbox, outbox.engine.storage.announce(Side::Outbox)).await;
                result = result.and(announced);
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
    task.run_until_cancelled(checks).await;
}

/// Checks the transactions that are due for a check, and passes on the messages of those that have committed.
async fn check(outbox: &Arc<Outbox>) -> Result<(), StorageError> {
    let (transactions, rows) = outbox.open_commits.due();
    if transactions.is_empty() {
        return Ok(());
    }
    let found = within_timeout(outbox, outbox.engine.storage.look_for(&transactions, &rows)).await?;
    let rows = rows.into_iter().collect();
    for Open { entries, waiting, unleased, .. } in
        outbox.open_commits.take_ended(&transactions, &rows, &found)
    {
        // The transaction has ended: a row that is not stored was rolled back with it, or with a savepoint.
        let there = entries.into_iter().filter(|entry| found.stored.contains(&entry.lease().id));
        PendingCommit::of(Arc::clone(outbox), there.collect()).committed();
        unleased.count(&found.stored);
        if let Some(due) = waiting {
            outbox.engine.storage.due.note(Side::Outbox, due.saturating_duration_since(Instant::now()));
            outbox.open_commits.announce();
        }
    }
    Ok(())
}

async fn within_timeout<T>(
    outbox: &Outbox,
    call: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
    tokio::time::timeout(CHECK_TIMEOUT, call).await.unwrap_or_else(|_| {
        Err(outbox.engine.storage.unavailable("checking for committed messages took too long"))
    })
}
