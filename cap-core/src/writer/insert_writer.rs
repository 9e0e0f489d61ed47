//! The insert writer: inserts new rows into the outbox or the inbox, batch by batch. Callers wait for its reply.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::insert_item::{InsertItem, has_generated_id};
use super::write::{WRITE_TIMEOUT, takes_writes, too_long, write};
use crate::error::{StorageError, StorageErrorKind};
use crate::runtime::backoff::Backoff;
use crate::runtime::batch_queue::{BATCH_BYTES, Queue};
use crate::runtime::engine::Engine;
use crate::storage::{Lease, NewIncoming, Side, Stored, WriteBatch, WriteReport};

/// A batch that has failed this often while the storage accepted other writes is split in two; a single item is retried
/// separately. Each half starts with one failure, that of the whole.
const FAILURES_BEFORE_SPLIT: u32 = 2;

/// A single item above [`BATCH_BYTES`] that has failed this often while the storage accepted other writes is rejected.
const FAILURES_BEFORE_REJECTION: u32 = 5;

/// The number of items that are retried separately at a time. At the limit no new items are taken, so that the queue
/// fills and all callers slow down.
const SEPARATE_LIMIT: usize = 16;

/// Inserts batch by batch. Ends when the queue is closed and empty, and every item is stored, rejected or abandoned.
pub(crate) async fn run_insert_writer(engine: Arc<Engine>, queue: mpsc::Receiver<InsertItem>) {
    let mut queue = Queue::from(queue);
    let mut aside = FuturesUnordered::new();
    let limit = engine.options.batch_size;
    loop {
        let items = tokio::select! {
            // Dropping either arm loses nothing: `gather` takes items only when it completes, and the futures in `aside`
            // stay there.
            items = queue.gather(&engine.lifecycle.stop.writers, limit, BATCH_BYTES, InsertItem::size), if aside.len() < SEPARATE_LIMIT => items,
            Some(()) = aside.next(), if !aside.is_empty() => continue,
        };
        let Some(items) = items else { break };
        let mut rest = vec![Batch { items, failures: 0, first_try: None }];
        while let Some(batch) = rest.pop() {
            let Err(NotStored { error, batch, why }) = insert(&engine, batch, false).await else { continue };
            match why {
                // One invalid row fails its whole batch; alone it fails only itself.
                Why::Rejected | Why::AtFault if batch.items.len() > 1 => {
                    let (first, second) = batch.halves();
                    rest.extend([second, first]);
                }
                Why::RetrySeparately => aside.push(retry_separately(&engine, batch)),
                why => batch.fail(&error, why),
            }
        }
    }
    while aside.next().await.is_some() {}
}

/// Retries an item that the storage does not accept while it accepts other writes, until it does or nobody waits for it.
async fn retry_separately(engine: &Engine, batch: Batch) {
    tracing::warn!(
        rows = batch.items.iter().map(InsertItem::rows).sum::<usize>(),
        bytes = batch.items.iter().map(InsertItem::size).sum::<usize>(),
        "storage does not accept a message but accepts others; retrying it separately"
    );
    if let Err(NotStored { error, batch, why }) = insert(engine, batch, true).await {
        batch.fail(&error, why);
    }
}

/// The items that are written by one call.
struct Batch {
    items: Vec<InsertItem>,
    /// How often the batch has failed while the storage accepted other writes.
    failures: u32,
    /// When the first call began whose answer may have been lost.
    first_try: Option<Instant>,
}

impl Batch {
    fn halves(mut self) -> (Self, Self) {
        let items = self.items.split_off(self.items.len().div_ceil(2));
        let (failures, first_try) = (self.failures.min(1), self.first_try);
        (Self { failures, ..self }, Self { items, failures, first_try })
    }

    fn fail(self, error: &StorageError, why: Why) {
        for item in self.items {
            let kind = match &item {
                // Not for published messages: an earlier try may have stored them although it returned an error.
                InsertItem::Incoming(..) if why == Why::AtFault => StorageErrorKind::Refused,
                _ => error.kind(),
            };
            item.fail(error.retold(kind));
        }
    }

    /// Decides what to do with a batch that the storage does not accept although it accepts other writes. `None` to try
    /// it once more.
    fn fault(&self, is_separate: bool) -> Option<Why> {
        let [item] = &self.items[..] else {
            return (self.failures >= FAILURES_BEFORE_SPLIT).then_some(Why::AtFault);
        };
        // A large item may exceed a limit of the server. Any other item is retried.
        let is_at_fault =
            item.is_divisible() || self.failures >= FAILURES_BEFORE_REJECTION && item.size() > BATCH_BYTES;
        match self.failures >= FAILURES_BEFORE_SPLIT {
            true if is_at_fault => Some(Why::AtFault),
            true if !is_separate => Some(Why::RetrySeparately),
            _ => None,
        }
    }
}

/// Why a batch is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The storage has rejected its data.
    Rejected,
    /// Some of its items are at fault, and not the storage.
    AtFault,
    /// It is to be retried separately from other items.
    RetrySeparately,
    /// The bus has stopped.
    Stopped,
}

/// A batch that is not stored, as far as this node knows.
struct NotStored {
    error: StorageError,
    batch: Batch,
    why: Why,
}

/// Inserts a batch. While the storage is unavailable it retries for as long as a caller waits for the reply. If the
/// storage needs operator action, publishers get the error at once. Fails if the storage rejects the data, or if it does
/// not accept the batch while it accepts other writes.
async fn insert(engine: &Engine, mut batch: Batch, is_separate: bool) -> Result<(), NotStored> {
    let mut backoff = Backoff::default();
    loop {
        batch.items.retain(|item| !item.is_abandoned());
        if batch.items.is_empty() {
            return Ok(());
        }
        let rows = rows_of(&mut batch.items);
        let begun = Instant::now();
        // Which rows were in the outbox before this try.
        let mut duplicates = Vec::new();
        let written = match (write(engine, &rows).await, batch.first_try) {
            (Ok(report), Some(first_try)) => {
                duplicates.extend(report.outgoing.iter().map(|stored| *stored == Stored::Duplicate));
                recognize_own(engine, &rows, report, first_try).await
            }
            (written, _) => written,
        };
        let error = match written {
            Ok(report) => {
                // Whoever gets its reply has its message alone, and may change it without a copy.
                drop(rows);
                reply_stored(engine, batch.items, report, &duplicates, begun);
                return Ok(());
            }
            Err(error) if error.is_refused() => return Err(NotStored { error, batch, why: Why::Rejected }),
            Err(error) => error,
        };
        if error.is_unavailable() {
            batch.first_try.get_or_insert(begun);
            // Neither the first failure nor an outage counts against the batch. Nor does a full disk, where small writes may
            // still succeed.
            if !error.is_out_of_room() && (batch.failures == 0 || takes_others(engine, &batch.items).await) {
                batch.failures += 1;
                if let Some(why) = batch.fault(is_separate) {
                    return Err(NotStored { error, batch, why });
                }
            }
        } else {
            batch.items = fail_publishers(batch.items, &error, batch.first_try.is_some());
        }
        if !backoff.wait(&engine.lifecycle.stop.everything).await {
            return Err(NotStored { error, batch, why: Why::Stopped });
        }
    }
}

fn rows_of(items: &mut [InsertItem]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for item in items {
        match item {
            InsertItem::Outgoing { rows, after_write, .. } => {
                after_write.trying();
                batch.outgoing.extend_from_slice(rows);
            }
            InsertItem::Incoming(rows, _) => batch.incoming.extend_from_slice(rows),
        }
    }
    batch
}

/// Replies to all callers with what was stored. `duplicates` says which outgoing rows were there before this call, if an
/// earlier one may have stored them; `begun` is when this call began.
fn reply_stored(
    engine: &Engine,
    items: Vec<InsertItem>,
    report: WriteReport,
    duplicates: &[bool],
    begun: Instant,
) {
    let mut outgoing = report.outgoing.into_iter();
    let mut incoming = report.incoming.into_iter();
    let mut duplicates = duplicates.iter();
    for item in items {
        let (stored, since) = match &item {
            InsertItem::Outgoing { rows, .. } => {
                let is_old = duplicates.by_ref().take(rows.len()).any(|is_duplicate| *is_duplicate);
                (outgoing.by_ref().take(rows.len()).collect(), (!is_old).then_some(begun))
            }
            InsertItem::Incoming(rows, _) => (incoming.by_ref().take(rows.len()).collect(), Some(begun)),
        };
        item.stored(engine, stored, since);
    }
}

/// Whether the storage accepts another write.
async fn takes_others(engine: &Engine, items: &[InsertItem]) -> bool {
    match items.first().and_then(InsertItem::first_row) {
        Some((side, id)) => takes_writes(engine, side, Lease { id, epoch: 1 }).await,
        None => false,
    }
}

/// Reports rows as new that are duplicates only of themselves: the answer of an earlier try, which stored them, was lost.
async fn recognize_own(
    engine: &Engine,
    batch: &WriteBatch,
    mut report: WriteReport,
    first_try: Instant,
) -> Result<WriteReport, StorageError> {
    for (row, stored) in batch.outgoing.iter().zip(&mut report.outgoing) {
        // A generated id is unique, so that a duplicate of it can only be the row itself.
        if *stored == Stored::Duplicate && (has_generated_id(row) || is_there(engine, row.id).await?) {
            *stored = Stored::New;
        }
    }
    recognize_received(engine, &batch.incoming, &mut report.incoming, first_try).await?;
    Ok(report)
}

/// Reports received rows as new that this node has stored itself and still leases, so that their consumer continues with
/// them. Rows whose lease has expired are left to the claims, which decide who handles them.
async fn recognize_received(
    engine: &Engine,
    rows: &[NewIncoming],
    stored: &mut [Stored],
    first_try: Instant,
) -> Result<(), StorageError> {
    let (places, leases): (Vec<usize>, Vec<Lease>) = rows
        .iter()
        .enumerate()
        .filter(|(place, row)| stored.get(*place) == Some(&Stored::Duplicate) && row.is_leased())
        .map(|(place, row)| (place, Lease { id: row.id, epoch: 1 }))
        .unzip();
    if leases.is_empty() {
        return Ok(());
    }
    if first_try.elapsed() >= engine.storage.owner.lease {
        engine.storage.wake(Side::Inbox);
        return Ok(());
    }
    let renewed = engine.storage.renew(&engine.storage.owner, Side::Inbox, &leases);
    let renewed = tokio::time::timeout(WRITE_TIMEOUT, renewed).await;
    let renewed = renewed.unwrap_or_else(|_| Err(too_long(engine, "looking for received rows")))?;
    for (place, is_held) in places.into_iter().zip(renewed) {
        if let Some(stored) = stored.get_mut(place).filter(|_| is_held) {
            *stored = Stored::New;
        }
    }
    Ok(())
}

async fn is_there(engine: &Engine, row: i64) -> Result<bool, StorageError> {
    let found = tokio::time::timeout(WRITE_TIMEOUT, engine.storage.get(Side::Outbox, row)).await;
    Ok(found.unwrap_or_else(|_| Err(too_long(engine, "looking for a row")))?.is_some())
}

/// Replies to publishers with the error, and returns the items whose callers go on waiting.
fn fail_publishers(items: Vec<InsertItem>, error: &StorageError, repeated: bool) -> Vec<InsertItem> {
    // After a lost answer the rows may be stored nevertheless.
    let kind = if repeated { StorageErrorKind::Unavailable } else { error.kind() };
    let (publishers, waiting): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| matches!(item, InsertItem::Outgoing { .. }));
    for item in publishers {
        item.fail(error.retold(kind));
    }
    waiting
}
