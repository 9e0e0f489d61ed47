//! Which suspects of this process run now, and whose turn is next: what the groups share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::storage::{Lease, StartMark, Suspect};

/// What the groups of a process share: which suspects run now.
#[derive(Debug, Default)]
pub(crate) struct SuspectGate {
    /// Shared by suspects that were never marked, exclusive for those that were. It is fair: who waits for it alone is
    /// not overtaken.
    turns: Arc<RwLock<()>>,
    /// Those that run, or are about to. No await stands between the locks and the changes.
    running: Arc<Mutex<Vec<Running>>>,
    /// Marks are written one after the other, so that the last one in the storage is the true one.
    pub(crate) marking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Running {
    lease: Lease,
    /// Whether its start is noted in the storage.
    is_marked: bool,
}

/// A suspect's turn; ends as it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    lease: Lease,
    running: Arc<Mutex<Vec<Running>>>,
    _turn: Turn,
}

#[derive(Debug)]
#[allow(dead_code, reason = "the guards are held, not looked at")]
enum Turn {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

impl SuspectGate {
    /// Waits for a suspect's turn among the groups of this process. Dropping it half-way gives up the place in the queue.
    pub(crate) async fn turn(&self, lease: Lease, suspect: &Suspect) -> Pass {
        let turns = Arc::clone(&self.turns);
        let turn = if suspect.started_before {
            Turn::Alone(turns.write_owned().await)
        } else {
            Turn::Shared(turns.read_owned().await)
        };
        Pass { lease, running: Arc::clone(&self.running), _turn: turn }
    }

    /// Puts a suspect among those that run.
    pub(crate) fn join(&self, lease: Lease) {
        lock(&self.running).push(Running { lease, is_marked: false });
    }

    /// How all that run are to be marked. Those that are marked already may not be alone any more.
    pub(crate) fn marks(&self) -> Vec<StartMark> {
        let running = lock(&self.running);
        let alone = running.len() == 1;
        running.iter().map(|one| StartMark { lease: one.lease, alone }).collect()
    }

    /// These marks are in the storage, where the lease was held.
    pub(crate) fn marked(&self, marks: &[StartMark], held: &[bool]) {
        for one in lock(&self.running).iter_mut() {
            let held = marks.iter().zip(held).any(|(mark, held)| mark.lease == one.lease && *held);
            one.is_marked |= held;
        }
    }

    /// Whether a suspect's start is noted in the storage.
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
    fn who_was_marked_before_runs_while_no_other_does() {
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
