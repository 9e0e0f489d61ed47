//! The insert writer: puts new rows into the outbox and the inbox, batch by batch. Callers wait for it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{LIMIT, too_long, write};
use crate::backoff::Backoff;
use crate::batch::{BATCH_BYTES, fill, gather};
use crate::context::Context;
use crate::error::{StorageError, StorageErrorKind};
use crate::outgoing::has_generated_id;
use crate::publish::PendingCommit;
use crate::storage::{Entry, Lease, NewIncoming, NewOutgoing, Side, Stored, WriteBatch, WriteReport};

/// Rows to be inserted together, and who waits for it.
pub(crate) enum StoreItem {
    Outgoing {
        rows: Vec<NewOutgoing>,
        /// What follows from it, whether anybody still waits or not.
        handover: PendingCommit,
        reply: Reply,
    },
    Incoming(Vec<NewIncoming>, Reply),
}

type Reply = oneshot::Sender<Result<Vec<Stored>, StorageError>>;

impl StoreItem {
    fn size(&self) -> usize {
        match self {
            Self::Outgoing { rows, .. } => rows.iter().map(|row| row.message.size()).sum(),
            Self::Incoming(rows, _) => rows.iter().map(|row| row.message.size()).sum(),
        }
    }

    fn is_abandoned(&self) -> bool {
        match self {
            Self::Outgoing { reply, .. } | Self::Incoming(.., reply) => reply.is_closed(),
        }
    }

    /// Says that it could not be stored. What an earlier try may have stored is looked for.
    fn fail(self, error: StorageError) {
        match self {
            // A caller that has stopped waiting has been told that the outcome is unknown.
            Self::Outgoing { reply, .. } | Self::Incoming(.., reply) => drop(reply.send(Err(error))),
        }
    }

    /// Says what became of its rows. `since` is when the call began that has inserted them, if that was the last one.
    fn stored(self, context: &Context, stored: Vec<Stored>, since: Option<Instant>) {
        match self {
            Self::Outgoing { mut handover, reply, .. } => {
                if stored.contains(&Stored::Duplicate) {
                    handover.not_committed();
                } else {
                    if let Some(since) = since {
                        handover.inserted(since);
                    }
                    handover.committed();
                }
                drop(reply.send(Ok(stored)));
            }
            Self::Incoming(rows, reply) => {
                if context.stop.intake.is_cancelled() {
                    note_leases(context, &rows, &stored);
                }
                drop(reply.send(Ok(stored)));
            }
        }
    }
}

/// The lane that inserts. Ends when it is drained.
pub(crate) async fn run_store_lane(context: Arc<Context>, mut queue: mpsc::Receiver<StoreItem>) {
    let limit = context.options().batch_size;
    while let Some(items) = gather(&mut queue, &context.stop.lanes, limit, BATCH_BYTES, StoreItem::size).await
    {
        let mut rest = vec![items];
        while let Some(items) = rest.pop() {
            match insert(&context, items, &mut queue).await {
                Ok(()) => {}
                // One bad row fails its batch; alone it fails only itself.
                Err((error, mut items)) if items.len() > 1 && error.is_refused() => {
                    let half = items.split_off(items.len() / 2);
                    rest.push(half);
                    rest.push(items);
                }
                Err((error, items)) => {
                    for item in items {
                        item.fail(error.retold(error.kind()));
                    }
                }
            }
        }
    }
}

/// Inserts, waiting for a store that is away as long as anyone waits for the answer. Only data that the store refuses
/// is an error of the items; but who publishes is told at once when a person must mend the store.
async fn insert(
    context: &Context,
    mut items: Vec<StoreItem>,
    queue: &mut mpsc::Receiver<StoreItem>,
) -> Result<(), (StorageError, Vec<StoreItem>)> {
    let limit = context.options().batch_size;
    let mut backoff = Backoff::default();
    let mut first_try = None;
    loop {
        items.retain(|item| !item.is_abandoned());
        if items.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        for item in &mut items {
            match item {
                StoreItem::Outgoing { rows, handover, .. } => {
                    handover.trying();
                    batch.outgoing.extend_from_slice(rows);
                }
                StoreItem::Incoming(rows, _) => batch.incoming.extend_from_slice(rows),
            }
        }
        let begun = Instant::now();
        // What the last try has found there already.
        let mut duplicates = Vec::new();
        let written = match (write(context, &batch).await, first_try) {
            (Ok(report), Some(first_try)) => {
                duplicates.extend(report.outgoing.iter().map(|stored| *stored == Stored::Duplicate));
                recognise_own(context, &batch, report, first_try).await
            }
            (written, _) => written,
        };
        match written {
            Ok(report) => {
                let mut outgoing = report.outgoing.into_iter();
                let mut incoming = report.incoming.into_iter();
                let mut duplicates = duplicates.into_iter();
                for item in items {
                    let (stored, since) = match &item {
                        StoreItem::Outgoing { rows, .. } => {
                            let is_old =
                                duplicates.by_ref().take(rows.len()).any(|is_duplicate| is_duplicate);
                            (outgoing.by_ref().take(rows.len()).collect(), (!is_old).then_some(begun))
                        }
                        StoreItem::Incoming(rows, _) => {
                            (incoming.by_ref().take(rows.len()).collect(), Some(begun))
                        }
                    };
                    item.stored(context, stored, since);
                }
                return Ok(());
            }
            Err(error) if error.is_refused() => return Err((error, items)),
            Err(error) => {
                if error.is_unavailable() {
                    first_try.get_or_insert(begun);
                } else {
                    items = tell_publishers(items, &error, first_try.is_some());
                }
                if !backoff.wait(&context.stop.everything).await {
                    return Err((error, items));
                }
                // Those who have come meanwhile are told, too, what those are who were here before.
                fill(&mut items, queue, limit, BATCH_BYTES, StoreItem::size);
            }
        }
    }
}

/// After a lost answer a row may be a duplicate of itself, stored by an earlier try.
async fn recognise_own(
    context: &Context,
    batch: &WriteBatch,
    mut report: WriteReport,
    first_try: Instant,
) -> Result<WriteReport, StorageError> {
    for (row, stored) in batch.outgoing.iter().zip(&mut report.outgoing) {
        // The bus gives no id twice.
        if *stored == Stored::Duplicate && (has_generated_id(row) || is_there(context, row.id).await?) {
            *stored = Stored::New;
        }
    }
    recognise_received(context, &batch.incoming, &mut report.incoming, first_try).await?;
    Ok(report)
}

/// Of received rows that are duplicates, finds those that this node has stored itself and still leases: whoever waits for
/// them goes on with them. Once the lease is over they are left to the claims, which decide who handles them.
async fn recognise_received(
    context: &Context,
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
    if first_try.elapsed() >= context.owner.lease {
        context.wake(Side::Inbox);
        return Ok(());
    }
    let renewed = context.storage.renew(&context.owner, Side::Inbox, &leases);
    let renewed = tokio::time::timeout(LIMIT, renewed).await;
    let renewed = renewed.unwrap_or_else(|_| Err(too_long(context, "looking for received rows")))?;
    for (place, is_held) in places.into_iter().zip(renewed) {
        if let Some(stored) = stored.get_mut(place).filter(|_| is_held) {
            *stored = Stored::New;
        }
    }
    Ok(())
}

/// Notes the leases of received rows whose consumer may have stopped waiting, so that they are released at the end.
fn note_leases(context: &Context, rows: &[NewIncoming], stored: &[Stored]) {
    let new = rows.iter().zip(stored).filter(|(_, stored)| **stored == Stored::New);
    for (row, _) in new.filter(|(row, _)| matches!(row.entry, Entry::Scheduled { held: true })) {
        context.leases.add(Side::Inbox, Lease { id: row.id, epoch: 1 }, None);
    }
}

async fn is_there(context: &Context, row: i64) -> Result<bool, StorageError> {
    let found = tokio::time::timeout(LIMIT, context.storage.get(Side::Outbox, row)).await;
    Ok(found.unwrap_or_else(|_| Err(too_long(context, "looking for a row")))?.is_some())
}

/// Answers those who publish, and gives back who goes on waiting.
fn tell_publishers(items: Vec<StoreItem>, error: &StorageError, repeated: bool) -> Vec<StoreItem> {
    // After a lost answer the rows may be there all the same.
    let kind = if repeated { StorageErrorKind::Unavailable } else { error.kind() };
    let (publishers, waiting): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| matches!(item, StoreItem::Outgoing { .. }));
    for item in publishers {
        item.fail(error.retold(kind));
    }
    waiting
}
