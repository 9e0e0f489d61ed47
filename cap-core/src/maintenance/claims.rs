//! Takes what is due out of the store: retries, delayed messages, what overflowed, and what a dead node left.
//!
//! Nothing here polls for work of this process: due times are noted when they are made, and the store says when the
//! next one is. The slow poll is for work of other processes that died before they could say anything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::heartbeat::catch_up;
use crate::consume::{GroupGauge, Intake};
use crate::error::{StorageError, StorageErrorKind};
use crate::faults::point;
use crate::operate::failure_callback::Failure;
use crate::publish::{RelayItem, resume_late_commits};
use crate::runtime::backoff::Backoff;
use crate::runtime::byte_budget::Room;
use crate::runtime::context::Context;
use crate::runtime::due_times::Woken;
use crate::storage::{ClaimRequest, Claimed, Claims, RowCompletion, RowOutcome, Side};
use crate::writer::OutcomeItem;

/// A claim that takes longer is given up and tried again.
const LIMIT: Duration = Duration::from_mins(1);

/// Claims outbox rows for the relay until intake stops.
pub(crate) async fn run_outbox_claims(context: Arc<Context>) {
    let task = context.stop.intake.clone();
    let claims = async {
        if !context.ready().await {
            return;
        }
        let mut backoff = Backoff::default();
        loop {
            context.due.forget(Side::Outbox);
            let claimed = match resume_late_commits(&context).await {
                Ok(()) => claim_outbox(&context).await,
                Err(error) => Err(error),
            };
            pause(&context, Side::Outbox, claimed, &mut backoff).await;
        }
    };
    task.run_until_cancelled(claims).await;
}

/// One claim for the relay, as much as it has room for. Gives back when to look again.
async fn claim_outbox(context: &Context) -> Result<Option<Duration>, StorageError> {
    // Never more than open transactions have to leave free.
    let most = context.relay.max_capacity().div_ceil(2).min(context.options().batch_size);
    let room = context.relay.capacity().min(most);
    // Places are taken before rows are, so that no claimed row waits for one. Late commits may have all of them, and
    // only this task resumes those: it must not wait for a place without looking for them. Nothing is lost with the arm
    // that is dropped: places are taken all at once, and a late commit stays until it is resumed.
    let places = tokio::select! {
        biased;
        places = context.relay.reserve_many(room.max(1)) => places,
        () = context.late_commits.added() => return Ok(Some(Duration::ZERO)),
    };
    let Ok(mut places) = places else { return Ok(None) };
    let request = ClaimRequest { side: Side::Outbox, groups: Vec::new(), limit: room.max(1) };
    let claims = claim(context, &request).await?;
    let caught_up = claims.next_due.is_none_or(|next| !next.is_zero());
    context.set_backlog(!caught_up);
    for claimed in claims.rows {
        match (&claimed.notice, places.next()) {
            (Some(_), _) => notice(context, Side::Outbox, claimed).await,
            (None, Some(place)) => {
                context.leases.add(Side::Outbox, claimed.lease, None);
                place.send(RelayItem::claimed(claimed));
            }
            // No store gives more than it was asked for; were it to, the lease would run out.
            (None, None) => {}
        }
    }
    Ok(claims.next_due)
}

/// A group's intake, as the claims see it.
#[derive(Debug)]
pub(crate) struct InboxTarget {
    pub(crate) group: Arc<str>,
    pub(crate) intake: mpsc::Sender<Intake>,
    pub(crate) room: Arc<Room>,
    pub(crate) gauge: Arc<GroupGauge>,
}

/// Claims inbox rows for the groups of this process until intake stops.
pub(crate) async fn run_inbox_claims(context: Arc<Context>, targets: Vec<InboxTarget>) {
    let task = context.stop.intake.clone();
    let claims = async {
        if targets.is_empty() || !context.ready().await {
            return;
        }
        let mut backoff = Backoff::default();
        let mut rounds: Vec<_> = targets.iter().map(|target| (target, Instant::now())).collect();
        loop {
            let claimed = claim_for(&context, &mut rounds).await;
            let next = rounds.iter().map(|(_, next)| next.saturating_duration_since(Instant::now())).min();
            if pause(&context, Side::Inbox, claimed.map(|()| next), &mut backoff).await == Woken::ByWork {
                // Whose it is nobody says.
                context.due.forget(Side::Inbox);
                for (_, next) in &mut rounds {
                    *next = Instant::now();
                }
            }
        }
    };
    task.run_until_cancelled(claims).await;
}

/// Claims for each group whose time has come, and notes when that is again.
async fn claim_for(context: &Context, rounds: &mut [(&InboxTarget, Instant)]) -> Result<(), StorageError> {
    let poll = context.options().poll_interval;
    let now = Instant::now();
    for (target, next) in rounds.iter_mut().filter(|(_, next)| *next <= now) {
        let next_due = claim_inbox(context, target).await?;
        *next = Instant::now() + next_due.map_or(poll, |due| due.min(poll));
    }
    Ok(())
}

/// One claim for a group, as much as it has room for; none if it has no room, so that a slow group holds up no
/// other.
async fn claim_inbox(context: &Context, target: &InboxTarget) -> Result<Option<Duration>, StorageError> {
    /// When a group without room is looked at again; its handlers are busy meanwhile.
    const FULL: Duration = Duration::from_millis(100);
    let room = target.intake.capacity().min(context.options().batch_size);
    let Ok(mut places) = target.intake.try_reserve_many(room) else { return Ok(Some(FULL)) };
    // Suspects run one at a time. Whoever has enough of them to do leaves further ones to other nodes; what is delivered
    // goes on.
    let suspects = target.gauge.suspects.load(Ordering::Relaxed);
    if room == 0 || target.room.free().is_none() || suspects >= usize::from(context.options().prefetch) {
        return Ok(Some(FULL));
    }
    let request = ClaimRequest { side: Side::Inbox, groups: vec![Arc::clone(&target.group)], limit: room };
    let claims = claim(context, &request).await?;
    for claimed in claims.rows {
        match (&claimed.notice, places.next()) {
            (Some(_), _) => notice(context, Side::Inbox, claimed).await,
            (None, Some(place)) => {
                let cancelled = context.stop.handlers.child_token();
                context.leases.add(Side::Inbox, claimed.lease, Some(cancelled.clone()));
                place.send(Intake::claimed(claimed, &target.room, cancelled));
            }
            (None, None) => {}
        }
    }
    Ok(claims.next_due)
}

async fn claim(context: &Context, request: &ClaimRequest) -> Result<Claims, StorageError> {
    if !catch_up(context, request.side).await {
        let text = "leases could not be renewed, and nothing is claimed before they are";
        return Err(StorageError::new(StorageErrorKind::Unavailable, context.storage.name(), text));
    }
    point("claim.before").await;
    let claimed = tokio::time::timeout(LIMIT, context.storage.claim(&context.owner, request)).await;
    point("claim.after").await;
    let result = claimed.unwrap_or_else(|_| {
        let text = format!("a claim took longer than {LIMIT:?}");
        Err(StorageError::new(StorageErrorKind::Unavailable, context.storage.name(), text))
    });
    match &result {
        Err(error) => context.storage_health.down(error),
        Ok(claims) => {
            context.storage_health.up();
            if !claims.rows.is_empty() {
                tracing::debug!(side = ?request.side, count = claims.rows.len(), "claimed");
            }
            for claimed in &claims.rows {
                note_crash(claimed);
            }
        }
    }
    result
}

fn note_crash(claimed: &Claimed) {
    let Some(node) = claimed.suspect.as_ref().and_then(|suspect| suspect.crashed.as_deref()) else { return };
    metrics::counter!("cap_process_crashes_total").increment(1);
    tracing::warn!(
        row = claimed.lease.id,
        message_id = claimed.message.id(),
        topic = claimed.message.name(),
        group = &*claimed.group,
        node,
        crashes = claimed.crashes,
        "a process died while handling this message"
    );
}

/// A row that has failed for good and of which nobody may have been told, as its node died.
async fn notice(context: &Context, side: Side, claimed: Claimed) {
    let Some((reason, error)) = claimed.notice else { return };
    if context.notifies() {
        let Claimed { lease, message, group, attempts, .. } = claimed;
        let bus = context.bus.clone();
        context.notify(Failure { side, id: lease.id, message, group, reason, error, attempts, lease, bus });
    } else {
        let row_completion =
            RowCompletion { lease: claimed.lease, outcome: RowOutcome::Notified, publishes: Vec::new() };
        // The lane ends after this task.
        let _ = context.complete.send(OutcomeItem::new(side, row_completion)).await;
    }
}

/// Waits until there may be work again, and says why.
async fn pause(
    context: &Context,
    side: Side,
    claimed: Result<Option<Duration>, StorageError>,
    backoff: &mut Backoff,
) -> Woken {
    let Ok(next_due) = claimed else {
        tokio::time::sleep(backoff.next()).await;
        return Woken::ByTime;
    };
    backoff.reset();
    let poll = context.options().poll_interval;
    let wait = next_due.map_or(poll, |next| next.min(poll));
    if wait.is_zero() {
        // More is due than one claim took; others get their turn between two.
        tokio::task::yield_now().await;
    }
    context.due.wait(side, Instant::now() + wait).await
}
