//! The batching tasks in front of the storage: some [insert](insert), and callers wait for it; one writes
//! [outcomes](complete), and nobody does.
//!
//! Each writes what has gathered while its last batch was under way. Those who publish have an insert writer, and each
//! group has one, so that a batch that fails delays no other. A storage that is unavailable holds all of them up: the
//! bounded queues before them fill, and so everything that would make more work slows down.

mod insert_writer;
mod outcome_writer;
mod set_apart;

use std::time::Duration;

pub(crate) use insert_writer::{InsertItem, run_insert_writer};
pub(crate) use outcome_writer::{OutcomeItem, run_outcome_writer};

use crate::error::{StorageError, StorageErrorKind};
use crate::faults::point;
use crate::runtime::context::Context;
use crate::storage::{Lease, Side, WriteBatch, WriteReport};

/// A write that takes longer is given up and tried again; stores have shorter limits of their own.
const LIMIT: Duration = Duration::from_mins(1);

/// Writes, and notes for the health report how that went.
async fn write(context: &Context, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
    let result = write_unnoted(context, batch).await;
    match &result {
        Err(error) if !error.is_refused() => context.storage_health.down(error),
        _ => context.storage_health.up(),
    }
    result
}

async fn write_unnoted(context: &Context, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
    let marks = batch.outgoing.is_empty() && batch.incoming.is_empty();
    point(if marks { "mark.before" } else { "insert.before" }).await;
    let written = tokio::time::timeout(LIMIT, context.storage.write(&context.owner, batch)).await;
    point(if marks { "mark.after" } else { "insert.after" }).await;
    written.unwrap_or_else(|_| Err(too_long(context, &format!("a write of {} items", batch.len()))))
}

/// Whether the storage takes another write, one that renews this lease if it is there: then it is not unavailable, and
/// what it does not take may be at fault.
async fn takes_writes(context: &Context, side: Side, lease: Lease) -> bool {
    let renewed = context.storage.renew(&context.owner, side, std::slice::from_ref(&lease));
    matches!(tokio::time::timeout(context.owner.lease / 3, renewed).await, Ok(Ok(_)))
}

fn too_long(context: &Context, what: &str) -> StorageError {
    let text = format!("{what} took longer than {LIMIT:?}");
    StorageError::new(StorageErrorKind::Unavailable, context.storage.name(), text)
}
