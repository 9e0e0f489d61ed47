//! Renews leases and the worker id on a separate thread with its own runtime, for storages that offer connections for it,
//! so that a handler that blocks the bus's runtime does not lose its lease.
//!
//! At each renewal the thread checks that the bus's runtime responds. A runtime that has not responded for too long counts
//! as dead: its leases are no longer renewed, and other nodes take over its messages.

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

/// How long the thread waits at its end for operations that its runtime cannot cancel, such as a DNS lookup.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The health check between the thread and the bus's runtime.
#[derive(Debug, Default)]
struct Pulse {
    asked: Notify,
    answers: AtomicU64,
}

/// Starts the thread, and the task that owns it, if the storage offers connections for it. Returns `false` if there is no
/// such thread.
pub(crate) fn spawn_renewal(
    engine: &Arc<Engine>,
    activities: Activities,
    request: &NodeRequest,
    tasks: &TaskTracker,
) -> bool {
    let Some(storage) = engine.storage.apart() else { return false };
    let pulse = Arc::new(Pulse::default());
    // Cancelled with everything else, and also when the task that owns the thread is dropped with the bus's runtime.
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
        tracing::warn!(%error, "cannot start the lease renewal thread; a handler that blocks its thread loses its lease");
        return false;
    }
    tasks.spawn(answer(Arc::clone(engine), pulse, over, ended));
    true
}

/// Answers the thread on the bus's runtime until everything stops, then waits for the thread to end.
///
/// The thread wakes this task from outside of the runtime, so that it does not queue behind a handler that blocks one of
/// several worker threads.
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
    // Nothing is sent: the channel is closed when the thread ends.
    let _ = ended.await;
}

/// Makes a thread log to the subscriber of the thread that started it. A global subscriber needs no help, even if it is set
/// later.
fn logged_to(log: &Dispatch, work: impl FnOnce()) {
    if log.is::<NoSubscriber>() { work() } else { dispatcher::with_default(log, work) }
}

/// The state of the thread.
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
                tracing::warn!(%error, "cannot start the lease renewal runtime; a handler that blocks its thread loses its lease");
                return;
            }
        };
        runtime.block_on(async move {
            let over = self.over.clone();
            // A renewal that is cancelled may have been applied or not; either way the lease is released, or it expires.
            over.run_until_cancelled(self.beats()).await;
            // Dropped here, because its connections must be dropped within the runtime.
            drop(self);
        });
        runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
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
            watch.check(answers, late > period, || busy(&self.activities));
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

/// What the thread knows about the bus's runtime.
#[derive(Debug)]
struct Watch {
    lease: Duration,
    dead_after: Duration,
    answers: u64,
    /// When the runtime last answered.
    since: Instant,
    is_late: bool,
    is_dead: bool,
}

impl Watch {
    fn new(lease: Duration, dead_after: u32) -> Self {
        let dead_after = lease.saturating_mul(dead_after);
        Self { lease, dead_after, answers: 0, since: Instant::now(), is_late: false, is_dead: false }
    }

    /// Checks whether the runtime has answered, and logs changes. If this thread itself was late, as when the whole process
    /// was paused, the time until now does not count.
    fn check(&mut self, answers: u64, missed: bool, busy: impl Fn() -> String) {
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

    #[tokio::test(start_paused = true)]
    async fn runtime_is_dead_after_a_long_silence_until_it_answers() {
        let second = Duration::from_secs(1);
        let mut watch = Watch::new(second, 3);
        let mut check = async |after: Duration, answers, missed| {
            tokio::time::advance(after).await;
            watch.check(answers, missed, String::new);
            (watch.is_late, watch.is_dead)
        };
        assert_eq!(check(second, 1, false).await, (false, false));
        assert_eq!(check(second * 2, 1, false).await, (true, false));
        // The process was paused.
        assert_eq!(check(second * 60, 1, true).await, (true, false));
        assert_eq!(check(second * 4, 1, false).await, (true, true));
        assert_eq!(check(second * 60, 1, true).await, (true, true));
        assert_eq!(check(second, 2, false).await, (false, false));
    }
}
