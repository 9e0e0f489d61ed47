//! One write to the storage, with its limit and what it says of the storage's health.

use std::time::Duration;

use crate::error::StorageError;
use crate::faults::point;
use crate::runtime::engine::Engine;
use crate::storage::{Lease, Side, WriteBatch, WriteReport};

/// A write that takes longer is given up and tried again; stores have shorter limits of their own.
pub(super) const LIMIT: Duration = Duration::from_mins(1);

/// Writes, and notes for the health report how that went.
pub(super) async fn write(engine: &Engine, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
    let result = write_unnoted(engine, batch).await;
    match &result {
        Err(error) if !error.is_refused() => engine.storage.health.down(error),
        _ => engine.storage.health.up(),
    }
    result
}

pub(super) async fn write_unnoted(engine: &Engine, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
    let marks = batch.outgoing.is_empty() && batch.incoming.is_empty();
    point(if marks { "mark.before" } else { "insert.before" }).await;
    let written = tokio::time::timeout(LIMIT, engine.storage.write(&engine.storage.owner, batch)).await;
    point(if marks { "mark.after" } else { "insert.after" }).await;
    written.unwrap_or_else(|_| Err(too_long(engine, &format!("a write of {} items", batch.len()))))
}

/// Whether the storage takes another write, one that renews this lease if it is there: then it is not unavailable, and
/// what it does not take may be at fault.
pub(super) async fn takes_writes(engine: &Engine, side: Side, lease: Lease) -> bool {
    let renewed = engine.storage.renew(&engine.storage.owner, side, std::slice::from_ref(&lease));
    matches!(tokio::time::timeout(engine.storage.owner.lease / 3, renewed).await, Ok(Ok(_)))
}

pub(super) fn too_long(engine: &Engine, what: &str) -> StorageError {
    engine.storage.unavailable(format!("{what} took longer than {LIMIT:?}"))
}
