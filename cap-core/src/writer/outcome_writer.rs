//! The outcome writer: writes what became of messages, batch by batch. Hardly anyone waits for it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::set_apart::Aside;
use super::{LIMIT, takes_writes, write};
use crate::error::{LONGEST_ERROR, StorageError, error_chain, error_text};
use crate::publish::PendingCommit;
use crate::runtime::backoff::Backoff;
use crate::runtime::batch_queue::{BATCH_BYTES, Queue};
use crate::runtime::context::Context;
use crate::storage::{Reason, RowCompletion, RowOutcome, Side, WriteBatch, WriteReport};

/// A outcome to be written, what follows from it in memory, and perhaps someone who waits.
pub(crate) struct OutcomeItem {
    side: Side,
    row_completion: RowCompletion,
    after_commit: Option<PendingCommit>,
    reply: Option<oneshot::Sender<bool>>,
    /// Nobody here has the message any more: if something is to follow, the claims find it.
    left_to_claims: bool,
    /// How many attempts had failed before the one that it counts, if it counts one.
    attempts: Option<u32>,
    /// It may have been written already: the answer was lost.
    repeated: bool,
}

impl OutcomeItem {
    pub(crate) fn new(side: Side, mut row_completion: RowCompletion) -> Self {
        if let Some(error) = error_in(&mut row_completion.outcome) {
            *error = error_text(&*error);
        }
        Self {
            side,
            row_completion,
            after_commit: None,
            reply: None,
            left_to_claims: false,
            attempts: None,
            repeated: false,
        }
    }

    /// Says which attempt it counts, so that a word which may have been heard is not counted twice.
    pub(crate) fn counting(mut self, failed_before: u32) -> Self {
        self.attempts = Some(failed_before);
        self
    }

    /// The row's id.
    pub(super) fn row(&self) -> i64 {
        self.row_completion.lease.id
    }

    /// Whether the row stays with this node: then the same word, said twice, would be heard twice.
    fn row_stays(&self) -> bool {
        matches!(
            self.row_completion.outcome,
            RowOutcome::Retry { hold: true, .. } | RowOutcome::Failed { notify: true, .. }
        )
    }

    /// With messages to be relayed once they are stored.
    pub(crate) fn with_pending_commit(mut self, after_commit: PendingCommit) -> Self {
        self.after_commit = Some(after_commit);
        self
    }

    /// With someone who waits to hear whether the lease held.
    pub(crate) fn awaited(mut self) -> (Self, oneshot::Receiver<bool>) {
        let (reply, receiver) = oneshot::channel();
        self.reply = Some(reply);
        (self, receiver)
    }
}

/// Writes outcomes until the queue is closed and empty, and nothing is set aside any more.
pub(crate) async fn run_outcome_writer(context: Arc<Context>, queue: mpsc::Receiver<OutcomeItem>) {
    let mut queue = Queue::from(queue);
    let limit = context.options().batch_size;
    let size = |item: &OutcomeItem| {
        item.row_completion.publishes.iter().map(|row| row.message.size()).sum::<usize>()
    };
    let mut aside = Aside::new(limit);
    loop {
        tokio::select! {
            // Neither arm has taken anything when it is dropped: `gather` takes items only as it completes. With no
            // room aside nothing new is taken, so that the queue fills and everybody slows down.
            items = queue.gather(&context.stop.lanes, limit, BATCH_BYTES, size), if aside.has_room() => {
                let Some(items) = items else { break };
                write_all(&context, items, &mut aside).await;
            }
            () = aside.due(), if !aside.is_empty() => aside.retry(&context).await,
        }
    }
    while !aside.is_empty() {
        if context.stop.everything.run_until_cancelled(aside.due()).await.is_none() {
            // Nothing more can be done here: the leases expire and the messages go on elsewhere.
            return;
        }
        aside.retry(&context).await;
    }
}

/// What one try to write some items led to.
pub(super) enum Tried {
    Written,
    /// With the items that are not written.
    Failed(Option<StorageError>, Vec<OutcomeItem>),
}

/// Writes a batch. While the storage is unavailable all of it waits. Of a batch that keeps failing while the storage
/// takes other writes, the items at fault are found by halving it, and set aside.
async fn write_all(context: &Context, items: Vec<OutcomeItem>, aside: &mut Aside) {
    let mut backoff = Backoff::default();
    // A batch, and whether it failed before: a half has failed with the whole.
    let mut rest = vec![(items, false)];
    while let Some((items, failed_before)) = rest.pop() {
        let Tried::Failed(error, mut items) = write_once(context, items, write).await else { continue };
        let refused = error.as_ref().is_some_and(StorageError::is_refused);
        // A batch that is rejected is halved at once: that blames nobody yet.
        let is_theirs = match (refused && items.len() > 1, refused || failed_before && aside.has_room()) {
            (true, _) => true,
            (false, true) => takes_renewals(context, &items).await,
            (false, false) => false,
        };
        if !is_theirs {
            if !backoff.wait(&context.stop.everything).await {
                return;
            }
            rest.push((items, true));
        } else if items.len() > 1 {
            let half = items.split_off(items.len() / 2);
            rest.push((half, true));
            rest.push((items, true));
        } else if let Some(item) = items.pop() {
            match error {
                Some(error) if refused => {
                    rest.extend(refuse(context, &error, item).map(|item| (vec![item], false)));
                }
                error => aside.push(item, error.as_ref()),
            }
        }
    }
}

/// Tries once to write these items, and ends those that are written.
pub(super) async fn write_once(
    context: &Context,
    mut items: Vec<OutcomeItem>,
    write: impl AsyncFnOnce(&Context, &WriteBatch) -> Result<WriteReport, StorageError>,
) -> Tried {
    let repeated = items.iter().any(|item| item.repeated);
    if repeated && !leave_out_heard(context, &mut items).await {
        return Tried::Failed(None, items);
    }
    if items.is_empty() {
        return Tried::Written;
    }
    for after_commit in items.iter_mut().filter_map(|item| item.after_commit.as_mut()) {
        after_commit.trying();
    }
    let begun = Instant::now();
    match write(context, &marks(&items)).await {
        Ok(report) => {
            let mut outgoing = report.completed_outgoing.into_iter();
            let mut incoming = report.completed_incoming.into_iter();
            for mut item in items {
                let applied = match item.side {
                    Side::Outbox => outgoing.next(),
                    Side::Inbox => incoming.next(),
                };
                let applied = applied.unwrap_or(false);
                if applied && let Some(after_commit) = &mut item.after_commit {
                    after_commit.inserted(begun);
                }
                let repeated = item.repeated;
                completed(context, item, applied, repeated);
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
pub(super) async fn takes_renewals(context: &Context, items: &[OutcomeItem]) -> bool {
    match items.first() {
        Some(item) => takes_writes(context, item.side, item.row_completion.lease).await,
        None => false,
    }
}

/// What the storage refuses of an item on its own while it takes other writes. An error text is first made plain; then
/// the outcome becomes a failure that the storage can hold, with the handler's own error in it. What it refuses even
/// then is left to the lease, which expires, so that another attempt is made.
pub(super) fn refuse(context: &Context, error: &StorageError, mut item: OutcomeItem) -> Option<OutcomeItem> {
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
            context.leases.remove(item.side, item.row_completion.lease);
            return None;
        }
    };
    let text = format!("the outcome could not be stored: {text}");
    let outcome = RowOutcome::Failed {
        reason,
        error: own.map_or_else(|| text.clone(), |own| format!("{own}; {text}")),
        counted: true,
        keep: context.options().failed_expire_after,
        notify: context.notifies(),
    };
    let row_completion = RowCompletion { lease: item.row_completion.lease, outcome, publishes: Vec::new() };
    Some(OutcomeItem { left_to_claims: true, ..OutcomeItem::new(item.side, row_completion) })
}

fn error_in(outcome: &mut RowOutcome) -> Option<&mut String> {
    match outcome {
        RowOutcome::Retry { error, .. }
        | RowOutcome::RetryAtBroker { error, .. }
        | RowOutcome::Failed { error, .. } => Some(error),
        RowOutcome::Succeeded { .. } | RowOutcome::Notified | RowOutcome::Release { .. } => None,
    }
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
async fn leave_out_heard(context: &Context, items: &mut Vec<OutcomeItem>) -> bool {
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
            let still_held = context.leases.holds(item.side, item.row_completion.lease);
            completed(context, item, still_held, true);
        } else {
            unheard.push(item);
        }
    }
    *items = unheard;
    known
}

/// Whether an attempt has been counted already; `None` if the store cannot be asked.
async fn heard(context: &Context, item: &OutcomeItem, failed_before: u32) -> Option<bool> {
    let row = context.storage.get(item.side, item.row_completion.lease.id);
    let row = tokio::time::timeout(LIMIT, row).await.ok()?.ok()?;
    let ours = |owner: Option<String>| owner.as_deref() == Some(&*context.owner.node);
    Some(row.is_some_and(|row| row.attempts > failed_before && ours(row.owner)))
}

fn completed(context: &Context, item: OutcomeItem, applied: bool, repeated: bool) {
    let lease = item.row_completion.lease;
    let goes_on = item.row_stays();
    // Whoever was told may have acted before this was written.
    let told = matches!(item.row_completion.outcome, RowOutcome::Notified);
    if !applied && !repeated && !told {
        tracing::warn!(row = lease.id, side = ?item.side, "lease lost: another node now owns this message");
    }
    if !applied {
        context.leases.lose(item.side, lease);
    } else if !goes_on || item.left_to_claims {
        context.leases.remove(item.side, lease);
    }
    if goes_on && item.left_to_claims {
        context.due.note(item.side, context.owner.lease);
    }
    if applied || repeated {
        match item.row_completion.outcome {
            RowOutcome::Retry { after, hold: false, .. } | RowOutcome::Release { after } => {
                context.due.note(item.side, after);
            }
            RowOutcome::RetryAtBroker { after, spare, .. } => {
                context.due.note(item.side, after.saturating_add(spare));
            }
            _ => {}
        }
    }
    match item.after_commit {
        Some(after_commit) if applied => after_commit.committed(),
        Some(after_commit) if !repeated => after_commit.not_committed(),
        // After a lost answer the rows are there if it was heard the first time: as this is dropped, they are looked for.
        after_commit => drop(after_commit),
    }
    if let Some(reply) = item.reply {
        // Whoever waited may have been dropped at shutdown.
        let _ = reply.send(applied);
    }
}
