//! A single attempt to write a batch of outcomes, and what follows from its result for each of them.

use tokio::time::Instant;

use super::outcome_queue::{OutcomeItem, error_in};
use super::write::{WRITE_TIMEOUT, takes_writes};
use crate::error::{LONGEST_ERROR, StorageError, error_chain};
use crate::runtime::engine::Engine;
use crate::storage::{Reason, RowCompletion, RowOutcome, Side, WriteBatch, WriteReport};

/// The result of a single attempt to write some items.
pub(super) enum Tried {
    Written,
    /// Not written. There is no error if the storage could not be asked what an earlier attempt has written.
    Failed(Option<StorageError>, Vec<OutcomeItem>),
}

/// Tries once to write these items, and finishes those that are written.
pub(super) async fn write_once(
    engine: &Engine,
    mut items: Vec<OutcomeItem>,
    write: impl AsyncFnOnce(&Engine, &WriteBatch) -> Result<WriteReport, StorageError>,
) -> Tried {
    let repeated = items.iter().any(|item| item.repeated);
    if repeated && !skip_written(engine, &mut items).await {
        return Tried::Failed(None, items);
    }
    if items.is_empty() {
        return Tried::Written;
    }
    for after_write in items.iter_mut().filter_map(|item| item.after_write.as_mut()) {
        after_write.trying();
    }
    let begun = Instant::now();
    match write(engine, &marks(&items)).await {
        Ok(report) => {
            let mut outgoing = report.completed_outgoing.into_iter();
            let mut incoming = report.completed_incoming.into_iter();
            for mut item in items {
                let applied = match item.side {
                    Side::Outbox => outgoing.next(),
                    Side::Inbox => incoming.next(),
                };
                let applied = applied.unwrap_or(false);
                if applied && let Some(after_write) = &mut item.after_write {
                    after_write.inserted(begun);
                }
                let repeated = item.repeated;
                completed(engine, item, applied, repeated);
            }
            Tried::Written
        }
        Err(error) => {
            for item in &mut items {
                item.repeated |= !error.is_refused();
            }
            Tried::Failed(Some(error), items)
        }
    }
}

/// Whether the storage accepts another write to the first of these rows. If so it is available, and the outcome that it
/// does not accept may be at fault.
pub(super) async fn takes_renewals(engine: &Engine, items: &[OutcomeItem]) -> bool {
    match items.first() {
        Some(item) => takes_writes(engine, item.side, item.row_completion.lease).await,
        None => false,
    }
}

/// Simplifies an outcome that the storage rejects on its own while it accepts other writes, and returns what to write
/// instead. First the error text is reduced to plain ASCII; then the outcome is replaced by a failure with the handler's
/// own error in its text. If that is rejected as well, nothing is written: the lease expires and another attempt is made.
pub(super) fn refuse(engine: &Engine, error: &StorageError, mut item: OutcomeItem) -> Option<OutcomeItem> {
    let text = error_chain(error);
    tracing::error!(
        row = item.row_completion.lease.id,
        error = text,
        "storage rejected the outcome of a message"
    );
    if let Some(own) = error_in(&mut item.row_completion.outcome)
        && let Some(plain) = to_plain_ascii(own)
    {
        *own = plain;
        return Some(item);
    }
    let (reason, own) = match &item.row_completion.outcome {
        RowOutcome::Succeeded { .. } => (Reason::Permanent, None),
        RowOutcome::Retry { error, .. } | RowOutcome::RetryAtBroker { error, .. } => {
            (Reason::Permanent, Some(error.as_str()))
        }
        // No task here works on the message any more, and its row is unchanged.
        RowOutcome::Failed { .. } | RowOutcome::Notified | RowOutcome::Release { .. } => {
            engine.storage.leases.remove(item.side, item.row_completion.lease);
            return None;
        }
    };
    let text = format!("the outcome could not be stored: {text}");
    let outcome = RowOutcome::Failed {
        reason,
        error: own.map_or_else(|| text.clone(), |own| format!("{own}; {text}")),
        counted: true,
        keep: engine.options.failed_expire_after,
        notify: engine.notifier.has_callback(),
    };
    let row_completion = RowCompletion { lease: item.row_completion.lease, outcome, publishes: Vec::new() };
    Some(OutcomeItem { left_to_claims: true, ..OutcomeItem::new(item.side, row_completion) })
}

/// Escapes everything but plain ASCII and limits the length; `None` if the text is plain and short already.
fn to_plain_ascii(text: &str) -> Option<String> {
    let is_plain = |c: char| c == '\n' || c == ' ' || c.is_ascii_graphic();
    if text.len() <= LONGEST_ERROR && text.chars().all(is_plain) {
        return None;
    }
    let mut plain = String::new();
    for c in text.chars() {
        if is_plain(c) {
            plain.push(c);
        } else {
            plain.extend(c.escape_unicode());
        }
        if plain.len() >= LONGEST_ERROR - 16 {
            plain.push_str("...");
            break;
        }
    }
    Some(plain)
}

fn marks(items: &[OutcomeItem]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for item in items {
        match item.side {
            Side::Outbox => batch.completed_outgoing.push(item.row_completion.clone()),
            Side::Inbox => batch.completed_incoming.push(item.row_completion.clone()),
        }
    }
    batch
}

/// After a lost answer, finishes the items that the storage has already written and removes them, where writing an item
/// twice would matter. Returns `false` if the storage cannot be asked.
async fn skip_written(engine: &Engine, items: &mut Vec<OutcomeItem>) -> bool {
    let mut unwritten = Vec::with_capacity(items.len());
    let mut known = true;
    for item in items.drain(..) {
        let written = match item.attempts.filter(|_| item.row_stays()) {
            Some(failed_before) => is_written(engine, &item, failed_before).await,
            None => Some(false),
        };
        known &= written.is_some();
        if written == Some(true) {
            // The lease may have been lost meanwhile, possibly to a later claim of this very node.
            let still_held = engine.storage.leases.holds(item.side, item.row_completion.lease);
            completed(engine, item, still_held, true);
        } else {
            unwritten.push(item);
        }
    }
    *items = unwritten;
    known
}

/// Whether the attempt has already been counted in the storage; `None` if the storage cannot be asked.
async fn is_written(engine: &Engine, item: &OutcomeItem, failed_before: u32) -> Option<bool> {
    let row = engine.storage.get(item.side, item.row_completion.lease.id);
    let row = tokio::time::timeout(WRITE_TIMEOUT, row).await.ok()?.ok()?;
    let ours = |owner: Option<String>| owner.as_deref() == Some(&*engine.storage.owner.node);
    Some(row.is_some_and(|row| row.attempts > failed_before && ours(row.owner)))
}

fn completed(engine: &Engine, item: OutcomeItem, applied: bool, repeated: bool) {
    let lease = item.row_completion.lease;
    let goes_on = item.row_stays();
    // Not worth a warning: the notified operator may have re-run or deleted the message before this was written.
    let is_notified = matches!(item.row_completion.outcome, RowOutcome::Notified);
    if !applied && !repeated && !is_notified {
        tracing::warn!(row = lease.id, side = ?item.side, "lease lost: another node now owns this message");
    }
    if !applied {
        engine.storage.leases.lose(item.side, lease);
    } else if !goes_on || item.left_to_claims {
        engine.storage.leases.remove(item.side, lease);
    }
    if goes_on && item.left_to_claims {
        engine.storage.due.note(item.side, engine.storage.owner.lease);
    }
    if applied || repeated {
        match item.row_completion.outcome {
            RowOutcome::Retry { after, hold: false, .. } | RowOutcome::Release { after } => {
                engine.storage.due.note(item.side, after);
            }
            RowOutcome::RetryAtBroker { after, spare, .. } => {
                engine.storage.due.note(item.side, after.saturating_add(spare));
            }
            _ => {}
        }
    }
    match item.after_write {
        Some(after_write) if applied => after_write.committed(),
        Some(after_write) if !repeated => after_write.not_committed(),
        // After a lost answer the rows are stored if the first attempt was applied. Dropping this makes it look for them.
        after_write => drop(after_write),
    }
    if let Some(reply) = item.reply {
        // The waiting task may have been dropped at shutdown.
        let _ = reply.send(applied);
    }
}
