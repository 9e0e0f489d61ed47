//! The outcome writer: writes what became of messages, batch by batch. Hardly anyone waits for it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{LIMIT, write};
use crate::backoff::Backoff;
use crate::batch::{BATCH_BYTES, gather};
use crate::context::Context;
use crate::error::{StorageError, error_chain};
use crate::faults::sabotaged;
use crate::publish::Handover;
use crate::storage::{Reason, Settlement, Side, Verdict, WriteBatch};

/// A verdict to be written, what follows from it in memory, and perhaps someone who waits.
pub(crate) struct SettleItem {
    side: Side,
    settlement: Settlement,
    handover: Option<Handover>,
    reply: Option<oneshot::Sender<bool>>,
    /// Nobody here has the message any more: if something is to follow, the claims find it.
    left_to_claims: bool,
    /// How many attempts had failed before the one that it counts, if it counts one.
    attempts: Option<u32>,
}

impl SettleItem {
    pub(crate) fn new(side: Side, settlement: Settlement) -> Self {
        Self { side, settlement, handover: None, reply: None, left_to_claims: false, attempts: None }
    }

    /// Says which attempt it counts, so that a word which may have been heard is not counted twice.
    pub(crate) fn counting(mut self, failed_before: u32) -> Self {
        self.attempts = Some(failed_before);
        self
    }

    /// Whether the row stays with this node: then the same word, said twice, would be heard twice.
    fn row_stays(&self) -> bool {
        matches!(
            self.settlement.verdict,
            Verdict::Retry { hold: true, .. } | Verdict::Failed { notify: true, .. }
        )
    }

    /// With messages to be relayed once they are stored.
    pub(crate) fn with_handover(mut self, handover: Handover) -> Self {
        self.handover = Some(handover);
        self
    }

    /// With someone who waits to hear whether the lease held.
    pub(crate) fn awaited(mut self) -> (Self, oneshot::Receiver<bool>) {
        let (reply, receiver) = oneshot::channel();
        self.reply = Some(reply);
        (self, receiver)
    }
}

/// The lane that marks. Ends when it is drained.
pub(crate) async fn run_settle_lane(context: Arc<Context>, mut queue: mpsc::Receiver<SettleItem>) {
    let limit = context.options().batch_size;
    let size =
        |item: &SettleItem| item.settlement.publishes.iter().map(|row| row.message.size()).sum::<usize>();
    while let Some(items) = gather(&mut queue, &context.stop.lanes, limit, BATCH_BYTES, size).await {
        let mut rest = vec![items];
        while let Some(items) = rest.pop() {
            match mark(&context, items).await {
                Ok(()) => {}
                Err((_, mut items)) if items.len() > 1 => {
                    let half = items.split_off(items.len() / 2);
                    rest.push(half);
                    rest.push(items);
                }
                Err((error, items)) => rest.extend(
                    items
                        .into_iter()
                        .filter_map(|item| refused(&context, &error, item))
                        .map(|item| vec![item]),
                ),
            }
        }
    }
}

/// A verdict that the store refuses becomes a failure that it can hold; a failure that it refuses is left to the
/// lease, which runs out, so that another attempt is made.
#[allow(clippy::needless_pass_by_value, reason = "the item ends here")]
fn refused(context: &Context, error: &StorageError, item: SettleItem) -> Option<SettleItem> {
    let text = error_chain(error);
    tracing::error!(row = item.settlement.lease.id, error = text, "the store refused to settle a message");
    if matches!(item.settlement.verdict, Verdict::Failed { .. }) {
        context.leases.remove(item.side, item.settlement.lease);
        return None;
    }
    let verdict = Verdict::Failed {
        reason: Reason::Permanent,
        error: format!("the outcome could not be stored: {text}"),
        counted: true,
        keep: context.options().failed_expire_after,
        notify: context.notifies() && !matches!(item.settlement.verdict, Verdict::Notified),
    };
    let settlement = Settlement { lease: item.settlement.lease, verdict, publishes: Vec::new() };
    Some(SettleItem { left_to_claims: true, ..SettleItem::new(item.side, settlement) })
}

async fn mark(context: &Context, mut items: Vec<SettleItem>) -> Result<(), (StorageError, Vec<SettleItem>)> {
    let mut backoff = Backoff::default();
    let mut repeated = false;
    let (report, begun) = loop {
        let known = !repeated || sabotaged("count-twice") || leave_out_heard(context, &mut items).await;
        for handover in items.iter_mut().filter_map(|item| item.handover.as_mut()) {
            handover.trying();
        }
        let begun = Instant::now();
        let written = if known { Some(write(context, &marks(&items)).await) } else { None };
        match written {
            Some(Ok(report)) => break (report, begun),
            Some(Err(error)) if error.is_refused() => return Err((error, items)),
            _ => {
                repeated = true;
                if !backoff.wait(&context.stop.everything).await {
                    // Nothing more can be done here: the leases run out and the messages go on elsewhere.
                    return Ok(());
                }
            }
        }
    };
    let mut outgoing = report.settled_outgoing.into_iter();
    let mut incoming = report.settled_incoming.into_iter();
    for mut item in items {
        let applied = match item.side {
            Side::Outbox => outgoing.next(),
            Side::Inbox => incoming.next(),
        };
        let applied = applied.unwrap_or(false);
        if applied && let Some(handover) = &mut item.handover {
            handover.inserted(begun);
        }
        settled(context, item, applied, repeated);
    }
    Ok(())
}

fn marks(items: &[SettleItem]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for item in items {
        match item.side {
            Side::Outbox => batch.settled_outgoing.push(item.settlement.clone()),
            Side::Inbox => batch.settled_incoming.push(item.settlement.clone()),
        }
    }
    batch
}

/// After a lost answer, ends the items of which the store has heard, as far as it matters whether it hears of them
/// again. `false` if it cannot be asked.
async fn leave_out_heard(context: &Context, items: &mut Vec<SettleItem>) -> bool {
    let mut unheard = Vec::with_capacity(items.len());
    let mut known = true;
    for item in items.drain(..) {
        let heard = match item.attempts.filter(|_| item.row_stays()) {
            Some(failed_before) => heard(context, &item, failed_before).await,
            None => Some(false),
        };
        known &= heard.is_some();
        if heard == Some(true) {
            // Meanwhile the lease may have been lost, be it to this node itself.
            let still_held = context.leases.holds(item.side, item.settlement.lease);
            settled(context, item, still_held, true);
        } else {
            unheard.push(item);
        }
    }
    *items = unheard;
    known
}

/// Whether an attempt has been counted already; `None` if the store cannot be asked.
async fn heard(context: &Context, item: &SettleItem, failed_before: u32) -> Option<bool> {
    let row = context.storage.get(item.side, item.settlement.lease.id);
    let row = tokio::time::timeout(LIMIT, row).await.ok()?.ok()?;
    let ours = |owner: Option<String>| owner.as_deref() == Some(&*context.owner.node);
    Some(row.is_some_and(|row| row.attempts > failed_before && ours(row.owner)))
}

fn settled(context: &Context, item: SettleItem, applied: bool, repeated: bool) {
    let lease = item.settlement.lease;
    let goes_on = item.row_stays();
    // Whoever was told may have acted before this was written.
    let told = matches!(item.settlement.verdict, Verdict::Notified);
    if !applied && !repeated && !told {
        tracing::warn!(row = lease.id, side = ?item.side, "the lease on a message was lost; another node has it");
    }
    if !applied || !goes_on || item.left_to_claims {
        context.leases.remove(item.side, lease);
    }
    if goes_on && item.left_to_claims {
        context.due.note(item.side, context.owner.lease);
    }
    if applied || repeated {
        match item.settlement.verdict {
            Verdict::Retry { after, hold: false, .. } | Verdict::Release { after } => {
                context.due.note(item.side, after);
            }
            Verdict::RetryAtBroker { after, spare, .. } => {
                context.due.note(item.side, after.saturating_add(spare));
            }
            _ => {}
        }
    }
    match item.handover {
        Some(handover) if applied => handover.committed(),
        Some(handover) if !repeated => handover.not_committed(),
        // After a lost answer the rows are there if it was heard the first time: as this is dropped, they are looked for.
        handover => drop(handover),
    }
    if let Some(reply) = item.reply {
        // Whoever waited may have been dropped at shutdown.
        let _ = reply.send(applied);
    }
}
