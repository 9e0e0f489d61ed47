//! An insert writer: puts new rows into the outbox or the inbox, batch by batch. Callers wait for it.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::insert_item::{InsertItem, has_generated_id};
use super::write::{LIMIT, takes_writes, too_long, write};
use crate::error::{StorageError, StorageErrorKind};
use crate::runtime::backoff::Backoff;
use crate::runtime::batch_queue::{BATCH_BYTES, Queue};
use crate::runtime::engine::Engine;
use crate::storage::{Lease, NewIncoming, Side, Stored, WriteBatch, WriteReport};

/// What failed so often while the storage took other writes is taken apart: a batch is halved, and what cannot be goes
/// aside. A half has failed with the whole, once.
const BLAMED_AFTER: u32 = 2;

/// An item above [`BATCH_BYTES`] that failed so often, alone, while the storage took other writes is at fault.
const REFUSED_AFTER: u32 = 5;

/// So many items are tried beside the others. With more of them nothing new is taken, so that everybody slows down.
const ASIDE: usize = 16;

/// Inserts batch by batch. Ends when the queue is closed and empty, and nobody waits any more.
pub(crate) async fn run_insert_writer(engine: Arc<Engine>, queue: mpsc::Receiver<InsertItem>) {
    let mut queue = Queue::from(queue);
    let mut aside = FuturesUnordered::new();
    let limit = engine.options.batch_size;
    loop {
        let items = tokio::select! {
            // Nothing is lost with the arm that is dropped: `gather` takes items only as it completes.
            items = queue.gather(&engine.lifecycle.stop.writers, limit, BATCH_BYTES, InsertItem::size), if aside.len() < ASIDE => items,
            Some(()) = aside.next(), if !aside.is_empty() => continue,
        };
        let Some(items) = items else { break };
        let mut rest = vec![Batch { items, failures: 0, first_try: None }];
        while let Some(batch) = rest.pop() {
            let Err(NotStored { error, batch, why }) = insert(&engine, batch, false).await else { continue };
            match why {
                // One bad row fails its batch; alone it fails only itself.
                Why::Refused | Why::Blamed if batch.items.len() > 1 => {
                    let (first, second) = batch.halves();
                    rest.extend([second, first]);
                }
                Why::Aside => aside.push(go_on_aside(&engine, batch)),
                why => batch.fail(&error, why),
            }
        }
    }
    while aside.next().await.is_some() {}
}

/// Goes on with what the storage does not take while it takes other writes, until it does or nobody waits any more.
async fn go_on_aside(engine: &Engine, batch: Batch) {
    tracing::warn!(
        rows = batch.items.iter().map(InsertItem::rows).sum::<usize>(),
        bytes = batch.items.iter().map(InsertItem::size).sum::<usize>(),
        "storage does not take a message but takes others; retrying it apart"
    );
    if let Err(NotStored { error, batch, why }) = insert(engine, batch, true).await {
        batch.fail(&error, why);
    }
}

/// What is written by one call.
struct Batch {
    items: Vec<InsertItem>,
    /// How often it has failed while the storage took other writes.
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
                // Some try may have stored what is published, though its answer said otherwise.
                InsertItem::Incoming(..) if why == Why::Blamed => StorageErrorKind::Refused,
                _ => error.kind(),
            };
            item.fail(error.retold(kind));
        }
    }

    /// What is to be done about a batch that the storage does not take, though it takes other writes.
    fn blamed(&self, is_aside: bool) -> Option<Why> {
        let [item] = &self.items[..] else {
            return (self.failures >= BLAMED_AFTER).then_some(Why::Blamed);
        };
        // Of a large one a limit of the server's may be the reason. Any other waits.
        let is_at_fault = item.is_divisible() || self.failures >= REFUSED_AFTER && item.size() > BATCH_BYTES;
        match self.failures >= BLAMED_AFTER {
            true if is_at_fault => Some(Why::Blamed),
            true if !is_aside => Some(Why::Aside),
            _ => None,
        }
    }
}

/// Why a batch is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The storage has rejected its data.
    Refused,
    /// It, or some of it, is at fault, and not the storage.
    Blamed,
    /// It is to be tried beside others.
    Aside,
    /// The bus has stopped.
    Stopped,
}

/// A batch that is not stored, as far as is known.
struct NotStored {
    error: StorageError,
    batch: Batch,
    why: Why,
}

/// Inserts, waiting for a store that is away as long as anyone waits for the answer. Data that the store refuses is an
/// error of the items, and so is what it does not take while it takes other writes; who publishes is told at once when a
/// person must repair the store.
async fn insert(engine: &Engine, mut batch: Batch, is_aside: bool) -> Result<(), NotStored> {
    let mut backoff = Backoff::default();
    loop {
        batch.items.retain(|item| !item.is_abandoned());
        if batch.items.is_empty() {
            return Ok(());
        }
        let rows = rows_of(&mut batch.items);
        let begun = Instant::now();
        // What the last try has found there already.
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
                answer(engine, batch.items, report, &duplicates, begun);
                return Ok(());
            }
            Err(error) if error.is_refused() => return Err(NotStored { error, batch, why: Why::Refused }),
            Err(error) => error,
        };
        if error.is_unavailable() {
            batch.first_try.get_or_insert(begun);
            // The first failure blames nobody, and an outage does not either. On a full disk small writes may still succeed.
            if !error.is_out_of_room() && (batch.failures == 0 || takes_others(engine, &batch.items).await) {
                batch.failures += 1;
                if let Some(why) = batch.blamed(is_aside) {
                    return Err(NotStored { error, batch, why });
                }
            }
        } else {
            batch.items = tell_publishers(batch.items, &error, batch.first_try.is_some());
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

/// Tells everybody what became of the rows. `duplicates` says of the outgoing ones what was there before a repeated call,
/// which began when `begun` says.
fn answer(engine: &Engine, items: Vec<InsertItem>, report: WriteReport, duplicates: &[bool], begun: Instant) {
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

/// Whether the storage takes another write.
async fn takes_others(engine: &Engine, items: &[InsertItem]) -> bool {
    match items.first().and_then(InsertItem::first_row) {
        Some((side, id)) => takes_writes(engine, side, Lease { id, epoch: 1 }).await,
        None => false,
    }
}

/// After a lost answer a row may be a duplicate of itself, stored by an earlier try.
async fn recognize_own(
    engine: &Engine,
    batch: &WriteBatch,
    mut report: WriteReport,
    first_try: Instant,
) -> Result<WriteReport, StorageError> {
    for (row, stored) in batch.outgoing.iter().zip(&mut report.outgoing) {
        // The bus gives no id twice.
        if *stored == Stored::Duplicate && (has_generated_id(row) || is_there(engine, row.id).await?) {
            *stored = Stored::New;
        }
    }
    recognize_received(engine, &batch.incoming, &mut report.incoming, first_try).await?;
    Ok(report)
}

/// Of received rows that are duplicates, finds those that this node has stored itself and still leases: whoever waits for
/// them goes on with them. Once the lease is over they are left to the claims, which decide who handles them.
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
    let renewed = tokio::time::timeout(LIMIT, renewed).await;
    let renewed = renewed.unwrap_or_else(|_| Err(too_long(engine, "looking for received rows")))?;
    for (place, is_held) in places.into_iter().zip(renewed) {
        if let Some(stored) = stored.get_mut(place).filter(|_| is_held) {
            *stored = Stored::New;
        }
    }
    Ok(())
}

async fn is_there(engine: &Engine, row: i64) -> Result<bool, StorageError> {
    let found = tokio::time::timeout(LIMIT, engine.storage.get(Side::Outbox, row)).await;
    Ok(found.unwrap_or_else(|_| Err(too_long(engine, "looking for a row")))?.is_some())
}

/// Answers those who publish, and gives back who goes on waiting.
fn tell_publishers(items: Vec<InsertItem>, error: &StorageError, repeated: bool) -> Vec<InsertItem> {
    // After a lost answer the rows may be there all the same.
    let kind = if repeated { StorageErrorKind::Unavailable } else { error.kind() };
    let (publishers, waiting): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| matches!(item, InsertItem::Outgoing { .. }));
    for item in publishers {
        item.fail(error.retold(kind));
    }
    waiting
}
