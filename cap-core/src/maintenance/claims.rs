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
use crate::consume::{GroupGauge, Received};
use crate::error::StorageError;
use crate::faults::point;
use crate::publish::{Outbox, resume_late_commits};
use crate::runtime::backoff::Backoff;
use crate::runtime::byte_budget::ByteBudget;
use crate::runtime::due_times::Woken;
use crate::runtime::in_flight::InFlight;
use crate::runtime::notifier::FailedMessage;
use crate::storage::{ClaimRequest, Claimed, Claims, RowOutcome, Side};

/// A claim that takes longer is given up and tried again.
const LIMIT: Duration = Duration::from_mins(1);

/// Claims outbox rows for the relay until intake stops.
pub(crate) async fn run_outbox_claims(outbox: Arc<Outbox>) {
    let task = outbox.engine.lifecycle.stop.intake.clone();
    let claims = async {
        if !outbox.engine.lifecycle.ready().await {
            return;
        }
        let mut backoff = Backoff::default();
        loop {
            outbox.engine.storage.due.forget(Side::Outbox);
            let claimed = match resume_late_commits(&outbox).await {
                Ok(()) => claim_outbox(&outbox).await,
                Err(error) => Err(error),
            };
            pause(&outbox, Side::Outbox, claimed, &mut backoff).await;
        }
    };
    task.run_until_cancelled(claims).await;
}

/// One claim for the relay, as much as it has room for. Gives back when to look again.
async fn claim_outbox(outbox: &Outbox) -> Result<Option<Duration>, StorageError> {
    // Never more than open transactions have to leave free.
    let most = outbox.relay.sender().max_capacity().div_ceil(2).min(outbox.engine.options.batch_size);
    let room = outbox.relay.sender().capacity().min(most);
    // Places are taken before rows are, so that no claimed row waits for one. Late commits may have all of them, and
    // only this task resumes those: it must not wait for a place without looking for them. Nothing is lost with the arm
    // that is dropped: places are taken all at once, and a late commit stays until it is resumed.
    let places = tokio::select! {
        biased;
        places = outbox.relay.sender().reserve_many(room.max(1)) => places,
        () = outbox.late_commits.added() => return Ok(Some(Duration::ZERO)),
    };
    let Ok(mut places) = places else { return Ok(None) };
    let request = ClaimRequest { side: Side::Outbox, groups: Vec::new(), limit: room.max(1) };
    let claims = claim(outbox, &request).await?;
    let caught_up = claims.next_due.is_none_or(|next| !next.is_zero());
    outbox.relay.set_backlog(!caught_up);
    for claimed in claims.rows {
        match (&claimed.notice, places.next()) {
            (Some(_), _) => notice(outbox, Side::Outbox, claimed).await,
            (None, Some(place)) => {
                outbox.engine.storage.leases.add(Side::Outbox, claimed.lease, None);
                place.send(InFlight::claimed(claimed));
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
    pub(crate) intake: mpsc::Sender<Received>,
    pub(crate) budget: Arc<ByteBudget>,
    pub(crate) gauge: Arc<GroupGauge>,
}

/// Claims inbox rows for the groups of this process until intake stops.
pub(crate) async fn run_inbox_claims(outbox: Arc<Outbox>, targets: Vec<InboxTarget>) {
    let task = outbox.engine.lifecycle.stop.intake.clone();
    let claims = async {
        if targets.is_empty() || !outbox.engine.lifecycle.ready().await {
            return;
        }
        let mut backoff = Backoff::default();
        let mut rounds: Vec<_> = targets.iter().map(|target| (target, Instant::now())).collect();
        loop {
            let claimed = claim_for(&outbox, &mut rounds).await;
            let next = rounds.iter().map(|(_, next)| next.saturating_duration_since(Instant::now())).min();
            if pause(&outbox, Side::Inbox, claimed.map(|()| next), &mut backoff).await == Woken::ByWork {
                // Whose it is nobody says.
                outbox.engine.storage.due.forget(Side::Inbox);
                for (_, next) in &mut rounds {
                    *next = Instant::now();
                }
            }
        }
    };
    task.run_until_cancelled(claims).await;
}

/// Claims for each group whose time has come, and notes when that is again.
async fn claim_for(outbox: &Outbox, rounds: &mut [(&InboxTarget, Instant)]) -> Result<(), StorageError> {
    let poll = outbox.engine.options.poll_interval;
    let now = Instant::now();
    for (target, next) in rounds.iter_mut().filter(|(_, next)| *next <= now) {
        let next_due = claim_inbox(outbox, target).await?;
        *next = Instant::now() + next_due.map_or(poll, |due| due.min(poll));
    }
    Ok(())
}

/// One claim for a group, as much as it has room for; none if it has no room, so that a slow group holds up no
/// other.
async fn claim_inbox(outbox: &Outbox, target: &InboxTarget) -> Result<Option<Duration>, StorageError> {
    /// When a group without room is looked at again; its handlers are busy meanwhile.
    const FULL: Duration = Duration::from_millis(100);
    let room = target.intake.capacity().min(outbox.engine.options.batch_size);
    let Ok(mut places) = target.intake.try_reserve_many(room) else { return Ok(Some(FULL)) };
    // Suspects run one at a time. Whoever has enough of them to do leaves further ones to other nodes; what is delivered
    // goes on.
    let suspects = target.gauge.suspects.load(Ordering::Relaxed);
    if room == 0 || target.budget.free().is_none() || suspects >= usize::from(outbox.engine.options.prefetch)
    {
        return Ok(Some(FULL));
    }
    let request = ClaimRequest { side: Side::Inbox, groups: vec![Arc::clone(&target.group)], limit: room };
    let claims = claim(outbox, &request).await?;
    for claimed in claims.rows {
        match (&claimed.notice, places.next()) {
            (Some(_), _) => notice(outbox, Side::Inbox, claimed).await,
            (None, Some(place)) => {
                let cancelled = outbox.engine.lifecycle.stop.handlers.child_token();
                outbox.engine.storage.leases.add(Side::Inbox, claimed.lease, Some(cancelled.clone()));
                place.send(Received::claimed(claimed, &target.budget, cancelled));
            }
            (None, None) => {}
        }
    }
    Ok(claims.next_due)
}

async fn claim(outbox: &Outbox, request: &ClaimRequest) -> Result<Claims, StorageError> {
    if !catch_up(&outbox.engine, request.side).await {
        let text = "leases could not be renewed, and nothing is claimed before they are";
        return Err(outbox.engine.storage.unavailable(text));
    }
    point("claim.before").await;
    let claimed =
        tokio::time::timeout(LIMIT, outbox.engine.storage.claim(&outbox.engine.storage.owner, request)).await;
    point("claim.after").await;
    let result = claimed.unwrap_or_else(|_| {
        let text = format!("a claim took longer than {LIMIT:?}");
        Err(outbox.engine.storage.unavailable(text))
    });
    match &result {
        Err(error) => outbox.engine.storage.health.down(error),
        Ok(claims) => {
            outbox.engine.storage.health.up();
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
async fn notice(outbox: &Outbox, side: Side, claimed: Claimed) {
    let Some((reason, error)) = claimed.notice else { return };
    let Claimed { lease, message, group, attempts, .. } = claimed;
    if outbox.engine.notifier.has_callback() {
        let failed = FailedMessage { side, lease, message, group, reason, error, attempts };
        outbox.engine.notify(failed);
    } else {
        outbox.outcomes.write(side, lease, RowOutcome::Notified).await;
    }
}

/// Waits until there may be work again, and says why.
async fn pause(
    outbox: &Outbox,
    side: Side,
    claimed: Result<Option<Duration>, StorageError>,
    backoff: &mut Backoff,
) -> Woken {
    let Ok(next_due) = claimed else {
        tokio::time::sleep(backoff.next()).await;
        return Woken::ByTime;
    };
    backoff.reset();
    let poll = outbox.engine.options.poll_interval;
    let wait = next_due.map_or(poll, |next| next.min(poll));
    if wait.is_zero() {
        // More is due than one claim took; others get their turn between two.
        tokio::task::yield_now().await;
    }
    outbox.engine.storage.due.wait(side, Instant::now() + wait).await
}
