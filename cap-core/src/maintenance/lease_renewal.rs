//! Renews leases and the worker id on a thread and a runtime of their own, on storages that offer connections for it, so
//! that a handler that blocks the bus's runtime does not lose what it is at.
//!
//! The thread asks the bus's runtime for a sign of life at each renewal. One that gives none for too long counts as dead, and
//! other nodes get its work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::dispatcher::{self, Dispatch};
use tracing::subscriber::NoSubscriber;

use super::heartbeat::{Activities, Beats, beat, warn_if_late};
use super::node::keep;
use crate::handlers::busy;
use crate::runtime::engine::Engine;
use crate::runtime::erased::DynStorage;
use crate::runtime::health::Phase;
use crate::storage::NodeRequest;

/// How long the thread waits at its end for what its runtime cannot break off, such as a look-up of a host's name.
const LAST: Duration = Duration::from_secs(1);

/// By which the bus's runtime shows that it lives.
#[derive(Debug, Default)]
struct Pulse {
    asked: Notify,
    answers: AtomicU64,
}

/// Starts the thread, if the storage offers what it needs, and the task that owns it. `false` if there is none.
pub(crate) fn spawn_renewal(
    engine: &Arc<Engine>,
    activities: Activities,
    request: &NodeRequest,
    tasks: &TaskTracker,
) -> bool {
    let Some(storage) = engine.storage.apart() else { return false };
    let pulse = Arc::new(Pulse::default());
    // Ends with everything, and with the task that owns the thread: it is dropped with the bus's runtime.
    let over = engine.lifecycle.stop.everything.child_token();
    let (ending, ended) = oneshot::channel::<()>();
    let renewal = Renewal {
        engine: Arc::clone(engine),
        activities,
        storage,
        request: request.clone(),
        pulse: Arc::clone(&pulse),
        over: over.clone(),
    };
    let log = dispatcher::get_default(Clone::clone);
    let spawned = thread::Builder::new().name("cap-renewal".to_owned()).spawn(move || {
        logged_to(&log, || renewal.run());
        drop(ending);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread for lease renewal: a handler that blocks its thread loses its lease");
        return false;
    }
    tasks.spawn(answer(Arc::clone(engine), pulse, over, ended));
    true
}

/// Answers on the bus's runtime until everything stops, and then waits for the thread's end.
///
/// The thread's question wakes this from outside of the runtime, so it never waits behind a handler that blocks one thread
/// of many.
async fn answer(
    engine: Arc<Engine>,
    pulse: Arc<Pulse>,
    over: CancellationToken,
    ended: oneshot::Receiver<()>,
) {
    let over = over.drop_guard();
    let answers = async {
        loop {
            pulse.asked.notified().await;
            pulse.answers.fetch_add(1, Ordering::Relaxed);
        }
    };
    engine.lifecycle.stop.everything.run_until_cancelled(answers).await;
    drop(over);
    // It sends nothing; its end closes the channel.
    let _ = ended.await;
}

/// Has a thread log to where the one that made it does. A log that is set for all threads needs nothing, also if it is set
/// later.
fn logged_to(log: &Dispatch, work: impl FnOnce()) {
    if log.is::<NoSubscriber>() { work() } else { dispatcher::with_default(log, work) }
}

/// What the thread has.
struct Renewal {
    engine: Arc<Engine>,
    activities: Activities,
    storage: Arc<dyn DynStorage>,
    request: NodeRequest,
    pulse: Arc<Pulse>,
    over: CancellationToken,
}

impl Renewal {
    fn run(self) {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::warn!(%error, "no runtime for lease renewal: a handler that blocks its thread loses its lease");
                return;
            }
        };
        runtime.block_on(async move {
            let over = self.over.clone();
            // A renewal that is broken off has been done or not; either way the lease is given back, or runs out.
            over.run_until_cancelled(self.beats()).await;
            // Its connections, too, are dropped while there is a runtime.
            drop(self);
        });
        runtime.shutdown_timeout(LAST);
    }

    async fn beats(&self) {
        let engine = &*self.engine;
        let period = engine.storage.owner.lease / 3;
        let mut beats = Beats::new(period);
        let mut watch = Watch::new(engine.storage.owner.lease, engine.options.runtime_dead_after);
        loop {
            let late = beats.next().await;
            warn_if_late(engine, &self.activities, late);
            let answers = self.pulse.answers.load(Ordering::Relaxed);
            watch.look(answers, late > period, || busy(&self.activities));
            self.pulse.asked.notify_one();
            if watch.is_dead {
                continue;
            }
            beat(engine, &*self.storage).await;
            if engine.lifecycle.phase.get() == Phase::Running {
                keep(engine, &*self.storage, &self.request, period).await;
            }
        }
    }
}

/// What the thread knows of the bus's runtime.
#[derive(Debug)]
struct Watch {
    lease: Duration,
    dead_after: Duration,
    answers: u64,
    /// Since when there was no answer.
    since: Instant,
    is_late: bool,
    is_dead: bool,
}

impl Watch {
    fn new(lease: Duration, dead_after: u32) -> Self {
        let dead_after = lease.saturating_mul(dead_after);
        Self { lease, dead_after, answers: 0, since: Instant::now(), is_late: false, is_dead: false }
    }

    /// Looks whether there was an answer. Nothing is held against the runtime that this thread missed itself, as when the
    /// whole process was paused.
    fn look(&mut self, answers: u64, missed: bool, busy: impl Fn() -> String) {
        let silent = self.since.elapsed();
        if answers != self.answers {
            if self.is_dead {
                tracing::warn!(
                    ?silent,
                    "runtime responds again; leases that no other node has claimed are renewed again"
                );
            }
            *self = Self { answers, since: Instant::now(), is_late: false, is_dead: false, ..*self };
        } else if missed && !self.is_dead {
            self.since = Instant::now();
        } else if silent > self.dead_after && !self.is_dead {
            self.is_dead = true;
            tracing::error!(
                ?silent,
                handlers = busy(),
                advice = "restart this process; move blocking code to tokio::task::spawn_blocking",
                "runtime dead: handlers block its threads. Its leases expire and other nodes take over"
            );
        } else if silent > self.lease && !self.is_late {
            self.is_late = true;
            tracing::warn!(
                ?silent,
                handlers = busy(),
                "runtime blocked, its leases are still renewed: move blocking code to spawn_blocking"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 8, row 10.
    #[tokio::test(start_paused = true)]
    async fn a_runtime_is_dead_when_it_was_silent_for_too_long_and_lives_when_it_answers() {
        let second = Duration::from_secs(1);
        let mut watch = Watch::new(second, 3);
        let mut look = async |after: Duration, answers, missed| {
            tokio::time::advance(after).await;
            watch.look(answers, missed, String::new);
            (watch.is_late, watch.is_dead)
        };
        assert_eq!(look(second, 1, false).await, (false, false));
        assert_eq!(look(second * 2, 1, false).await, (true, false));
        // The process was paused.
        assert_eq!(look(second * 60, 1, true).await, (true, false));
        assert_eq!(look(second * 4, 1, false).await, (true, true));
        assert_eq!(look(second * 60, 1, true).await, (true, true));
        assert_eq!(look(second, 2, false).await, (false, false));
    }
}
