//! Renews the leases of the messages that this process is working on, and releases them at shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::faults::point;
use crate::handlers::{Activity, busy, clear_blocked};
use crate::publish::Outbox;
use crate::runtime::engine::Engine;
use crate::runtime::erased::DynStorage;
use crate::storage::{Lease, RowCompletion, RowOutcome, Side, WriteBatch};

/// How many leases are renewed or released in one call.
const CHUNK: usize = 1000;

/// How busy each handler is, to name those that may block the runtime.
pub(crate) type Activities = Arc<[Arc<Activity>]>;

/// Renews all leases, three times within the lease duration, until everything stops. The handler of a lost lease is
/// cancelled. If a separate thread renews leases, this task renews only those that the thread did not.
pub(crate) async fn run_heartbeat(engine: Arc<Engine>, activities: Activities, has_thread: bool) {
    let everything = engine.lifecycle.stop.everything.clone();
    let beats = async {
        let mut beats = Beats::new(engine.storage.owner.lease / 3);
        loop {
            let late = beats.next().await;
            if has_thread {
                for side in [Side::Outbox, Side::Inbox] {
                    catch_up(&engine, side).await;
                }
            } else {
                warn_if_late(&engine, &activities, late);
                beat(&engine, &**engine.storage.shared()).await;
            }
        }
    };
    everything.run_until_cancelled(beats).await;
}

/// Renews all leases once.
pub(super) async fn beat(engine: &Engine, storage: &dyn DynStorage) {
    for side in [Side::Outbox, Side::Inbox] {
        renew_all(engine, storage, side).await;
    }
    withdraw_crashes(engine, storage).await;
}

/// The schedule of renewals.
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

    /// Waits for the next renewal, and returns how late it is. Time that the storage took for the last one does not count.
    pub(super) async fn next(&mut self) -> Duration {
        self.due = self.due.max(Instant::now());
        self.ticks.tick().await;
        let late = self.due.elapsed();
        self.due = Instant::now() + self.ticks.period();
        late
    }
}

/// Warns if leases may have expired before they were renewed, and names the handlers that may be the cause.
pub(super) fn warn_if_late(engine: &Engine, activities: &[Arc<Activity>], late: Duration) {
    // The previous renewal was a third of the lease before this one was due, so that two thirds were left then.
    let is_over = late > engine.storage.owner.lease * 2 / 3;
    if is_over && [Side::Outbox, Side::Inbox].iter().any(|side| !engine.storage.leases.all(*side).is_empty())
    {
        tracing::warn!(
            ?late,
            handlers = busy(activities),
            "leases renewed too late, other nodes may have claimed them: blocked thread or paused process"
        );
    }
    clear_blocked(activities);
}

/// Renews all leases of a side if that is overdue, for example after an outage. Returns `false` if they could not be
/// renewed. Claims call it first: this node would otherwise claim its own rows, whose leases have expired, and handle
/// messages again that it is already handling.
pub(super) async fn catch_up(engine: &Engine, side: Side) -> bool {
    !engine.storage.leases.is_stale(side, engine.storage.owner.lease / 2)
        || renew_all(engine, &**engine.storage.shared(), side).await
}

/// Renews all leases of a side, and returns whether the storage has processed each of them.
async fn renew_all(engine: &Engine, storage: &dyn DynStorage, side: Side) -> bool {
    let at = Instant::now();
    for leases in engine.storage.leases.all(side).chunks(CHUNK) {
        if !renew(engine, storage, side, leases).await {
            return false;
        }
    }
    engine.storage.leases.renewed(side, at);
    true
}

async fn renew(engine: &Engine, storage: &dyn DynStorage, side: Side, leases: &[Lease]) -> bool {
    point("renew.before").await;
    let renewed = storage.renew(&engine.storage.owner, side, leases);
    let renewed = tokio::time::timeout(engine.storage.owner.lease / 3, renewed).await;
    point("renew.after").await;
    match renewed {
        Ok(Ok(held)) => {
            engine.storage.health.up();
            for (lease, _) in leases.iter().zip(held).filter(|(_, held)| !held) {
                // A lease that was completed meanwhile is no longer in the book, and is not lost.
                if engine.storage.leases.holds(side, *lease) {
                    tracing::warn!(row = lease.id, ?side, "lease lost: another node now owns this message");
                    engine.storage.leases.lose(side, *lease);
                }
            }
            return true;
        }
        Ok(Err(error)) => engine.storage.health.down(&error),
        Err(_) => engine.storage.health.down(&"renewing leases took too long"),
    }
    false
}

/// Withdraws the crashes that other nodes have counted for leases that this process has lost: it did not crash, it was
/// paused, blocked or disconnected. If that fails, it is retried at the next renewal.
async fn withdraw_crashes(engine: &Engine, storage: &dyn DynStorage) {
    let leases = engine.storage.leases.take_lost_after_start();
    if leases.is_empty() {
        return;
    }
    let withdrawn = storage.withdraw_crashes(&leases);
    if !matches!(tokio::time::timeout(engine.storage.owner.lease / 3, withdrawn).await, Ok(Ok(()))) {
        engine.storage.leases.put_back_lost_after_start(leases);
    }
}

/// Releases all remaining leases once the bus has stopped, so that other nodes need not wait for them to expire.
pub(crate) async fn release_leases(outbox: &Outbox, limit: Duration) {
    let complete = |lease: &Lease| RowCompletion {
        lease: *lease,
        outcome: RowOutcome::Release { after: Duration::ZERO },
        publishes: Vec::new(),
    };
    let release = async {
        for side in [Side::Outbox, Side::Inbox] {
            let mut all = outbox.engine.storage.leases.all(side);
            if side == Side::Outbox {
                all.extend(outbox.late_commits.all());
                all.extend(outbox.open_commits.all());
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
                if let Err(error) = outbox.engine.storage.write(&outbox.engine.storage.owner, &batch).await {
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
