//! The insert writer: puts new rows into the outbox and the inbox, batch by batch. Callers wait for it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{LIMIT, too_long, write};
use crate::backoff::Backoff;
use crate::batch::{BATCH_BYTES, fill, gather};
use crate::context::Context;
use crate::error::{StorageError, StorageErrorKind};
use crate::outgoing::has_generated_id;
use crate::storage::{NewIncoming, NewOutgoing, Side, Stored, WriteBatch, WriteReport};

/// Rows to be inserted together, and who waits for it.
pub(crate) enum StoreItem {
    Outgoing(Vec<NewOutgoing>, oneshot::Sender<Result<Vec<Stored>, StorageError>>),
    Incoming(Vec<NewIncoming>, oneshot::Sender<Result<Vec<Stored>, StorageError>>),
}

impl StoreItem {
    fn size(&self) -> usize {
        match self {
            Self::Outgoing(rows, _) => rows.iter().map(|row| row.message.size()).sum(),
            Self::Incoming(rows, _) => rows.iter().map(|row| row.message.size()).sum(),
        }
    }

    fn is_abandoned(&self) -> bool {
        match self {
            Self::Outgoing(_, reply) | Self::Incoming(.., reply) => reply.is_closed(),
        }
    }

    fn answer(self, result: Result<Vec<Stored>, StorageError>) {
        match self {
            // A caller that has stopped waiting has been told that the outcome is unknown.
            Self::Outgoing(_, reply) | Self::Incoming(.., reply) => drop(reply.send(result)),
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
                        item.answer(Err(error.retold(error.kind())));
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
    let mut repeated = false;
    loop {
        items.retain(|item| !item.is_abandoned());
        if items.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        for item in &items {
            match item {
                StoreItem::Outgoing(rows, _) => batch.outgoing.extend_from_slice(rows),
                StoreItem::Incoming(rows, _) => batch.incoming.extend_from_slice(rows),
            }
        }
        let written = match write(context, &batch).await {
            Ok(report) if repeated => recognise_own(context, &batch, report).await,
            written => written,
        };
        match written {
            Ok(report) => {
                let mut outgoing = report.outgoing.into_iter();
                let mut incoming = report.incoming.into_iter();
                for item in items {
                    let stored = match &item {
                        StoreItem::Outgoing(rows, _) => outgoing.by_ref().take(rows.len()).collect(),
                        StoreItem::Incoming(rows, _) => incoming.by_ref().take(rows.len()).collect(),
                    };
                    item.answer(Ok(stored));
                }
                return Ok(());
            }
            Err(error) if error.is_refused() => return Err((error, items)),
            Err(error) => {
                if error.is_unavailable() {
                    repeated = true;
                } else {
                    items = tell_publishers(items, &error, repeated);
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

/// After a lost answer an outgoing row may be a duplicate of itself, stored by the first try.
async fn recognise_own(
    context: &Context,
    batch: &WriteBatch,
    mut report: WriteReport,
) -> Result<WriteReport, StorageError> {
    for (row, stored) in batch.outgoing.iter().zip(&mut report.outgoing) {
        // The bus gives no id twice.
        if *stored == Stored::Duplicate && (has_generated_id(row) || is_there(context, row.id).await?) {
            *stored = Stored::New;
        }
    }
    Ok(report)
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
        items.into_iter().partition(|item| matches!(item, StoreItem::Outgoing(..)));
    for item in publishers {
        item.answer(Err(error.retold(kind)));
    }
    waiting
}
