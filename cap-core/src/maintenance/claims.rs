//! Claims rows that are due: retries, delayed messages, messages that memory had no room for, and those of dead nodes.
//!
//! It does not poll for the work of this process: due times are recorded when they are set, and a claim returns the next
//! one. The slow poll finds the work of other processes that died before they could announce it.

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
use crate::runtime::metric_names::PROCESS_CRASHES;
use crate::runtime::notifier::FailedMessage;
use crate::storage::{ClaimRequest, Claimed, Claims, RowOutcome, Side};

/// The timeout of a claim, after which it is retried.
const CLAIM_TIMEOUT: Duration = Duration::from_mins(1);

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

/// Claims as many rows for the relay as it has room for. Returns when the next row is due, if that is known.
async fn claim_outbox(outbox: &Outbox) -> Result<Option<Duration>, StorageError> {
    // Never more places than open transactions must leave free, or reserving them could wait for a transaction to end.
    let most = outbox.relay.sender().max_capacity().div_ceil(2).min(outbox.engine.options.batch_size);
    let room = outbox.relay.sender().capacity().min(most);
    // Places are reserved before rows are claimed, so that no claimed row waits for a place. Late commits may occupy all
    // places, and only this task resumes them, so that it must also wake up for those. Dropping either arm loses nothing:
    // places are reserved all at once, and a late commit stays until it is resumed.
    let places = tokio::select! {
        biased;
        places = outbox.relay.sender().reserve_many(room.max(1)) => places,
        () = outbox.late_commits.added() => return Ok(Some(Duration::ZERO)),
    };
    let Ok(mut places) = places else { return Ok(None) };
    let request = ClaimRequest::new(Side::Outbox, Vec::new(), room.max(1));
    let claims = claim(outbox, &request).await?;
    let caught_up = claims.next_due.is_none_or(|next| !next.is_zero());
    outbox.relay.set_backlog(!caught_up);
    for claimed in claims.rows {
        match (&claimed.notice, places.next()) {
            (Some(_), _) => notify(outbox, Side::Outbox, claimed).await,
            (None, Some(place)) => {
                outbox.engine.storage.leases.add(Side::Outbox, claimed.lease, None);
                place.send(InFlight::claimed(claimed));
            }
            // A storage returns no more rows than requested. If one did, their leases would expire.
            (None, None) => {}
        }
    }
    Ok(claims.next_due)
}

/// A group to claim inbox rows for.
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
                // The wake-up does not say which group has a row that is due: claim for all of them.
                outbox.engine.storage.due.forget(Side::Inbox);
                for (_, next) in &mut rounds {
                    *next = Instant::now();
                }
            }
        }
    };
    task.run_until_cancelled(claims).await;
}

/// Claims rows for each group whose next claim is due, and sets when its next one is.
async fn claim_for(outbox: &Outbox, rounds: &mut [(&InboxTarget, Instant)]) -> Result<(), StorageError> {
    let poll = outbox.engine.options.poll_interval;
    let now = Instant::now();
    for (target, next) in rounds.iter_mut().filter(|(_, next)| *next <= now) {
        let next_due = claim_inbox(outbox, target).await?;
        *next = Instant::now() + next_due.map_or(poll, |due| due.min(poll));
    }
    Ok(())
}

/// Claims as many rows for a group as it has room for. Does not wait for room, so that a slow group does not delay the
/// others. Returns when the next row is due, if that is known.
async fn claim_inbox(outbox: &Outbox, target: &InboxTarget) -> Result<Option<Duration>, StorageError> {
    /// The pause before the next claim for a group without room; its handlers are busy meanwhile.
    const PAUSE_WITHOUT_ROOM: Duration = Duration::from_millis(100);
    let room = target.intake.capacity().min(outbox.engine.options.batch_size);
    let Ok(mut places) = target.intake.try_reserve_many(room) else { return Ok(Some(PAUSE_WITHOUT_ROOM)) };
    // Suspects run one at a time. A node that has many of them waiting leaves further ones to other nodes; deliveries from
    // the broker are handled all the same.
    let suspects = target.gauge.suspects.load(Ordering::Relaxed);
    let Some(bytes) = target.budget.free() else { return Ok(Some(PAUSE_WITHOUT_ROOM)) };
    if room == 0 || suspects >= usize::from(outbox.engine.options.prefetch) {
        return Ok(Some(PAUSE_WITHOUT_ROOM));
    }
    let request = ClaimRequest::new(Side::Inbox, vec![Arc::clone(&target.group)], room).within(bytes);
    let claims = claim(outbox, &request).await?;
    // A claim takes one row at least: with less room than for one like these, the next claim waits.
    if let Some(largest) = claims.rows.iter().map(|claimed| claimed.message.size()).max() {
        target.budget.expect(largest);
    }
    for claimed in claims.rows {
        match (&claimed.notice, places.next()) {
            (Some(_), _) => notify(outbox, Side::Inbox, claimed).await,
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
        let text = "could not renew leases; no rows are claimed until they are renewed";
        return Err(outbox.engine.storage.unavailable(text));
    }
    point("claim.before").await;
    let claimed = tokio::time::timeout(
        CLAIM_TIMEOUT,
        outbox.engine.storage.claim(&outbox.engine.storage.owner, request),
    )
    .await;
    point("claim.after").await;
    let result = claimed.unwrap_or_else(|_| {
        let text = format!("a claim took longer than {CLAIM_TIMEOUT:?}");
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
                report_crash(claimed);
            }
        }
    }
    result
}

fn report_crash(claimed: &Claimed) {
    let Some(node) = claimed.suspect.as_ref().and_then(|suspect| suspect.crashed.as_deref()) else { return };
    metrics::counter!(PROCESS_CRASHES, "group" => claimed.group.to_string()).increment(1);
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

/// Notifies an operator of a row that has failed for good. The node where it failed may have died before it could do that.
async fn notify(outbox: &Outbox, side: Side, claimed: Claimed) {
    let Some((reason, error)) = claimed.notice else { return };
    let Claimed { lease, message, group, attempts, .. } = claimed;
    if outbox.engine.notifier.has_callback() {
        let failed = FailedMessage { side, lease, message, group, reason, error, attempts };
        outbox.engine.notify(failed);
    } else {
        outbox.outcomes.write(side, lease, RowOutcome::Notified).await;
    }
}

/// Waits until there may be rows to claim, and returns why the wait ended.
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
        // More rows are due than one claim took. Yield, so that other tasks run between two claims.
        tokio::task::yield_now().await;
    }
    outbox.engine.storage.due.wait(side, Instant::now() + wait).await
}
