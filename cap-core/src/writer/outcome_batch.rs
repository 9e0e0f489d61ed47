//! One try to write a batch of outcomes, and what follows for each from how it went.

use tokio::time::Instant;

use super::outcome_queue::{OutcomeItem, error_in};
use super::write::{LIMIT, takes_writes};
use crate::error::{LONGEST_ERROR, StorageError, error_chain};
use crate::runtime::engine::Engine;
use crate::storage::{Reason, RowCompletion, RowOutcome, Side, WriteBatch, WriteReport};

/// What one try to write some items led to.
pub(super) enum Tried {
    Written,
    /// With the items that are not written.
    Failed(Option<StorageError>, Vec<OutcomeItem>),
}

/// Tries once to write these items, and ends those that are written.
pub(super) async fn write_once(
    engine: &Engine,
    mut items: Vec<OutcomeItem>,
    write: impl AsyncFnOnce(&Engine, &WriteBatch) -> Result<WriteReport, StorageError>,
) -> Tried {
    let repeated = items.iter().any(|item| item.repeated);
    if repeated && !leave_out_heard(engine, &mut items).await {
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

/// Whether the storage takes another write about the first of these rows: then it is not unavailable, and the outcome
/// that it does not take may be at fault.
pub(super) async fn takes_renewals(engine: &Engine, items: &[OutcomeItem]) -> bool {
    match items.first() {
        Some(item) => takes_writes(engine, item.side, item.row_completion.lease).await,
        None => false,
    }
}

/// What the storage refuses of an item on its own while it takes other writes. An error text is first made plain; then
/// the outcome becomes a failure that the storage can hold, with the handler's own error in it. What it refuses even
/// then is left to the lease, which expires, so that another attempt is made.
pub(super) fn refuse(engine: &Engine, error: &StorageError, mut item: OutcomeItem) -> Option<OutcomeItem> {
    let text = error_chain(error);
    tracing::error!(
        row = item.row_completion.lease.id,
        error = text,
        "storage rejected the outcome of a message"
    );
    if let Some(own) = error_in(&mut item.row_completion.outcome)
        && let Some(plain) = made_plain(own)
    {
        *own = plain;
        return Some(item);
    }
    let (reason, own) = match &item.row_completion.outcome {
        RowOutcome::Succeeded { .. } => (Reason::Permanent, None),
        RowOutcome::Retry { error, .. } | RowOutcome::RetryAtBroker { error, .. } => {
            (Reason::Permanent, Some(error.as_str()))
        }
        // Nobody here has the message any more, and its row is as it was.
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

/// The text in plain ASCII, with everything else escaped, at a length that fits anywhere; `None` if it is so already.
fn made_plain(text: &str) -> Option<String> {
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

/// After a lost answer, ends the items of which the store has heard, as far as it matters whether it learns of them
/// again. `false` if it cannot be asked.
async fn leave_out_heard(engine: &Engine, items: &mut Vec<OutcomeItem>) -> bool {
    let mut unheard = Vec::with_capacity(items.len());
    let mut known = true;
    for item in items.drain(..) {
        let heard = match item.attempts.filter(|_| item.row_stays()) {
            Some(failed_before) => heard(engine, &item, failed_before).await,
            None => Some(false),
        };
        known &= heard.is_some();
        if heard == Some(true) {
            // Meanwhile the lease may have been lost, be it to this node itself.
            let still_held = engine.storage.leases.holds(item.side, item.row_completion.lease);
            completed(engine, item, still_held, true);
        } else {
            unheard.push(item);
        }
    }
    *items = unheard;
    known
}

/// Whether an attempt has been counted already; `None` if the store cannot be asked.
async fn heard(engine: &Engine, item: &OutcomeItem, failed_before: u32) -> Option<bool> {
    let row = engine.storage.get(item.side, item.row_completion.lease.id);
    let row = tokio::time::timeout(LIMIT, row).await.ok()?.ok()?;
    let ours = |owner: Option<String>| owner.as_deref() == Some(&*engine.storage.owner.node);
    Some(row.is_some_and(|row| row.attempts > failed_before && ours(row.owner)))
}

fn completed(engine: &Engine, item: OutcomeItem, applied: bool, repeated: bool) {
    let lease = item.row_completion.lease;
    let goes_on = item.row_stays();
    // Whoever was told may have acted before this was written.
    let told = matches!(item.row_completion.outcome, RowOutcome::Notified);
    if !applied && !repeated && !told {
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
        // After a lost answer the rows are there if it was heard the first time: as this is dropped, they are looked for.
        after_write => drop(after_write),
    }
    if let Some(reply) = item.reply {
        // Whoever waited may have been dropped at shutdown.
        let _ = reply.send(applied);
    }
}
