//! The gate that decides which suspects run at the same time in this process. A suspect is a message whose last handler
//! may have crashed its process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::storage::{Lease, StartMark, Suspect};

/// The suspects that are running now; shared by the groups of a process.
#[derive(Debug, Default)]
pub(crate) struct SuspectGate {
    /// Held shared by suspects whose start was never marked before, and exclusively by those whose start was. The lock is
    /// fair: nobody overtakes a suspect that waits for exclusive access.
    turns: Arc<RwLock<()>>,
    /// The suspects that are running or about to run. There is no await between locking it and changing it.
    running: Arc<Mutex<Vec<Running>>>,
    /// Held while marks are written, one write after another, so that the marks in the storage are the latest ones.
    pub(crate) marking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Running {
    lease: Lease,
    /// Whether the start of its handler is marked in the storage.
    is_marked: bool,
}

/// A suspect's permission to run; dropping it ends its turn.
#[derive(Debug)]
pub(crate) struct Pass {
    lease: Lease,
    running: Arc<Mutex<Vec<Running>>>,
    _turn: Turn,
}

#[derive(Debug)]
#[allow(dead_code, reason = "the guards are held, not read")]
enum Turn {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

impl SuspectGate {
    /// Waits for a suspect's turn among all groups of this process. Cancel safe: dropping the future gives up only the
    /// place in the queue.
    pub(crate) async fn turn(&self, lease: Lease, suspect: &Suspect) -> Pass {
        let turns = Arc::clone(&self.turns);
        let turn = if suspect.started_before {
            Turn::Alone(turns.write_owned().await)
        } else {
            Turn::Shared(turns.read_owned().await)
        };
        Pass { lease, running: Arc::clone(&self.running), _turn: turn }
    }

    /// Adds a suspect to those that are running.
    pub(crate) fn join(&self, lease: Lease) {
        lock(&self.running).push(Running { lease, is_marked: false });
    }

    /// Returns the marks to write for all suspects that are running. Those that are marked already are included, since
    /// they may no longer run alone.
    pub(crate) fn marks(&self) -> Vec<StartMark> {
        let running = lock(&self.running);
        let alone = running.len() == 1;
        running.iter().map(|one| StartMark { lease: one.lease, alone }).collect()
    }

    /// Records that these marks are written. `applied` says for each whether this node still had the lease; if not, the
    /// mark is not in the storage.
    pub(crate) fn marked(&self, marks: &[StartMark], applied: &[bool]) {
        for one in lock(&self.running).iter_mut() {
            one.is_marked |=
                marks.iter().zip(applied).any(|(mark, applied)| mark.lease == one.lease && *applied);
        }
    }

    /// Whether the start of a suspect's handler is marked in the storage.
    pub(crate) fn is_marked(&self, lease: Lease) -> bool {
        lock(&self.running).iter().any(|one| one.lease == lease && one.is_marked)
    }
}

fn lock(running: &Mutex<Vec<Running>>) -> MutexGuard<'_, Vec<Running>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Pass {
    fn drop(&mut self) {
        lock(&self.running).retain(|one| one.lease != self.lease);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_suspect_that_was_marked_before_runs_alone() {
        let gate = SuspectGate::default();
        let lease = |id| Lease { id, epoch: 2 };
        let turn = |id, started_before| {
            let suspect = Suspect { started_before, crashed: None };
            let gate = &gate;
            async move { gate.turn(lease(id), &suspect).await }
        };
        let (one, two) = (turn(1, false).now_or_never().unwrap(), turn(2, false).now_or_never().unwrap());
        gate.join(lease(1));
        assert_eq!(gate.marks(), [StartMark { lease: lease(1), alone: true }]);
        gate.marked(&gate.marks(), &[true]);
        gate.join(lease(2));
        let both = [lease(1), lease(2)].map(|lease| StartMark { lease, alone: false });
        assert_eq!(gate.marks(), both, "neither is alone any more");
        assert!(gate.is_marked(lease(1)) && !gate.is_marked(lease(2)));
        gate.marked(&both, &[false, true]);
        assert!(gate.is_marked(lease(1)) && gate.is_marked(lease(2)));
        let mut alone = Box::pin(turn(3, true));
        assert!((&mut alone).now_or_never().is_none());
        assert!(turn(4, false).now_or_never().is_none(), "nobody overtakes it");
        drop(one);
        assert!((&mut alone).now_or_never().is_none());
        drop(two);
        let alone = alone.now_or_never().unwrap();
        assert!(turn(4, false).now_or_never().is_none());
        gate.join(lease(3));
        assert_eq!(gate.marks(), [StartMark { lease: lease(3), alone: true }]);
        drop(alone);
        assert!(turn(4, false).now_or_never().is_some());
    }
}
