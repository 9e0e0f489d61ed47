//! A single write to the storage, with its timeout and its effect on the storage's health.

use std::time::Duration;

use crate::error::StorageError;
use crate::faults::point;
use crate::runtime::engine::Engine;
use crate::storage::{Lease, Side, WriteBatch, WriteReport};

/// The timeout of a write, after which it is retried. Storage adapters have shorter timeouts of their own.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_mins(1);

/// Writes a batch, and records the result in the storage's health.
pub(super) async fn write(engine: &Engine, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
    let result = write_unrecorded(engine, batch).await;
    match &result {
        Err(error) if !error.is_refused() => engine.storage.health.down(error),
        _ => engine.storage.health.up(),
    }
    result
}

/// Writes a batch without recording the result in the storage's health.
pub(super) async fn write_unrecorded(
    engine: &Engine,
    batch: &WriteBatch,
) -> Result<WriteReport, StorageError> {
    let marks = batch.outgoing.is_empty() && batch.incoming.is_empty();
    point(if marks { "mark.before" } else { "insert.before" }).await;
    let written =
        tokio::time::timeout(WRITE_TIMEOUT, engine.storage.write(&engine.storage.owner, batch)).await;
    point(if marks { "mark.after" } else { "insert.after" }).await;
    written.unwrap_or_else(|_| Err(too_long(engine, &format!("a write of {} items", batch.len()))))
}

/// Whether the storage accepts another write, one that renews this lease if the row exists. If so it is available, and
/// the write that it does not accept may be at fault.
pub(super) async fn takes_writes(engine: &Engine, side: Side, lease: Lease) -> bool {
    let renewed = engine.storage.renew(&engine.storage.owner, side, std::slice::from_ref(&lease));
    matches!(tokio::time::timeout(engine.storage.owner.lease / 3, renewed).await, Ok(Ok(_)))
}

/// The error of an operation that has reached [`WRITE_TIMEOUT`].
pub(super) fn too_long(engine: &Engine, what: &str) -> StorageError {
    engine.storage.unavailable(format!("{what} took longer than {WRITE_TIMEOUT:?}"))
}
