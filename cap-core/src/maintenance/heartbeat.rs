//! Renews the leases of everything in this process's hands, and gives them back at the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::faults::point;
use crate::handlers::{busy, forgive};
use crate::runtime::context::Context;
use crate::runtime::erased::DynStorage;
use crate::storage::{Lease, RowCompletion, RowOutcome, Side, WriteBatch};

/// So many leases are renewed or given back in one call.
const CHUNK: usize = 1000;

/// Renews leases three times in a lease's time until everything stops. A lease that is lost has its handler told. When a
/// thread renews them, only what it did not come to.
pub(crate) async fn run_heartbeat(context: Arc<Context>, has_thread: bool) {
    let everything = context.stop.everything.clone();
    let beats = async {
        let mut beats = Beats::new(context.owner.lease / 3);
        loop {
            let late = beats.next().await;
            if has_thread {
                for side in [Side::Outbox, Side::Inbox] {
                    catch_up(&context, side).await;
                }
            } else {
                warn_if_late(&context, late);
                beat(&context, &*context.storage).await;
            }
        }
    };
    everything.run_until_cancelled(beats).await;
}

/// Renews everything once.
pub(super) async fn beat(context: &Context, storage: &dyn DynStorage) {
    for side in [Side::Outbox, Side::Inbox] {
        renew_all(context, storage, side).await;
    }
    withdraw_crashes(context, storage).await;
}

/// When leases are renewed.
#[derive(Debug)]
pub(super) struct Beats {
    ticks: Interval,
    due: Instant,
}

impl Beats {
    pub(super) fn new(period: Duration) -> Self {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, due: Instant::now() }
    }

    /// Waits for the next time, and gives back by how much it was missed. That the storage took long does not count.
    pub(super) async fn next(&mut self) -> Duration {
        self.due = self.due.max(Instant::now());
        self.ticks.tick().await;
        let late = self.due.elapsed();
        self.due = Instant::now() + self.ticks.period();
        late
    }
}

/// Says that leases may have run out before they were renewed, and which handlers may be why.
pub(super) fn warn_if_late(context: &Context, late: Duration) {
    // The last renewal was a third of a lease before this one was due.
    let is_over = late > context.owner.lease * 2 / 3;
    if is_over && [Side::Outbox, Side::Inbox].iter().any(|side| !context.leases.all(*side).is_empty()) {
        tracing::warn!(
            ?late,
            handlers = busy(&context.activities),
            "leases renewed too late, other nodes may have claimed them: blocked thread or paused process"
        );
    }
    forgive(&context.activities);
}

/// Renews every lease of a side if that is overdue, as after an outage; `false` if it could not be done. Claims ask for
/// it: this node would otherwise claim its own rows, whose leases have run out, and begin anew what it is at already.
pub(super) async fn catch_up(context: &Context, side: Side) -> bool {
    !context.leases.is_stale(side, context.owner.lease / 2)
        || renew_all(context, &*context.storage, side).await
}

/// Renews every lease of a side, and says whether the store has heard of each.
async fn renew_all(context: &Context, storage: &dyn DynStorage, side: Side) -> bool {
    let at = Instant::now();
    for leases in context.leases.all(side).chunks(CHUNK) {
        if !renew(context, storage, side, leases).await {
            return false;
        }
    }
    context.leases.renewed(side, at);
    true
}

async fn renew(context: &Context, storage: &dyn DynStorage, side: Side, leases: &[Lease]) -> bool {
    point("renew.before").await;
    let renewed = storage.renew(&context.owner, side, leases);
    let renewed = tokio::time::timeout(context.owner.lease / 3, renewed).await;
    point("renew.after").await;
    match renewed {
        Ok(Ok(held)) => {
            context.storage_health.up();
            for (lease, _) in leases.iter().zip(held).filter(|(_, held)| !held) {
                // One that was completed meanwhile is out of the book already.
                if context.leases.holds(side, *lease) {
                    tracing::warn!(row = lease.id, ?side, "lease lost: another node now owns this message");
                    context.leases.lose(side, *lease);
                }
            }
            return true;
        }
        Ok(Err(error)) => context.storage_health.down(&error),
        Err(_) => context.storage_health.down(&"renewing leases took too long"),
    }
    false
}

/// Takes back the crashes that others have counted for leases that this process has lost: it lives, and was paused, blocked
/// or cut off. What cannot be said now is said at the next beat.
async fn withdraw_crashes(context: &Context, storage: &dyn DynStorage) {
    let leases = context.leases.take_lost_after_start();
    if leases.is_empty() {
        return;
    }
    let withdrawn = storage.withdraw_crashes(&leases);
    if !matches!(tokio::time::timeout(context.owner.lease / 3, withdrawn).await, Ok(Ok(()))) {
        context.leases.put_back_lost_after_start(leases);
    }
}

/// Gives back what is still in hand when the bus has stopped, so that others need not wait for the leases' end.
pub(crate) async fn give_back(context: &Context, limit: Duration) {
    let complete = |lease: &Lease| RowCompletion {
        lease: *lease,
        outcome: RowOutcome::Release { after: Duration::ZERO },
        publishes: Vec::new(),
    };
    let release = async {
        for side in [Side::Outbox, Side::Inbox] {
            let mut all = context.leases.all(side);
            if side == Side::Outbox {
                all.extend(context.late_commits.all());
                all.extend(context.open_commits.all());
            }
            for leases in all.chunks(CHUNK) {
                let row_completions = leases.iter().map(complete).collect();
                let batch = match side {
                    Side::Outbox => {
                        WriteBatch { completed_outgoing: row_completions, ..WriteBatch::default() }
                    }
                    Side::Inbox => {
                        WriteBatch { completed_incoming: row_completions, ..WriteBatch::default() }
                    }
                };
                if let Err(error) = context.storage.write(&context.owner, &batch).await {
                    tracing::warn!(%error, count = leases.len(), "could not release leases; they expire on their own");
                    return;
                }
            }
        }
    };
    if tokio::time::timeout(limit, release).await.is_err() {
        tracing::warn!("releasing leases took too long; they expire on their own");
    }
}
