//! Which suspects of this process run now, and whose turn is next: what the groups share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::storage::{Lease, StartMark, Suspect};

/// What the groups of a process share: which suspects run now.
#[derive(Debug, Default)]
pub(crate) struct SuspectGate {
    /// Shared by suspects that were never marked, exclusive for those that were. It is fair: who waits for it alone is
    /// not overtaken.
    turns: Arc<RwLock<()>>,
    /// Those that may be running. No await stands between the locks and the changes.
    running: Arc<Mutex<Vec<Lease>>>,
    /// Marks are written one after the other, so that the last one in the storage is the true one.
    pub(crate) marking: tokio::sync::Mutex<()>,
}

/// A suspect's turn; ends as it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    lease: Lease,
    running: Arc<Mutex<Vec<Lease>>>,
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

    /// Puts a suspect among those that run, and says how all of them are to be marked, the new one first.
    pub(crate) fn join(&self, lease: Lease) -> Vec<StartMark> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = running.is_empty();
        let others = running.iter().map(|lease| StartMark { lease: *lease, alone });
        let marks = std::iter::once(StartMark { lease, alone }).chain(others).collect();
        running.push(lease);
        marks
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).retain(|lease| *lease != self.lease);
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
        assert_eq!(gate.join(lease(1)), [StartMark { lease: lease(1), alone: true }]);
        let both = [lease(2), lease(1)].map(|lease| StartMark { lease, alone: false });
        assert_eq!(gate.join(lease(2)), both, "neither is alone any more");
        let mut alone = Box::pin(turn(3, true));
        assert!((&mut alone).now_or_never().is_none());
        assert!(turn(4, false).now_or_never().is_none(), "nobody overtakes it");
        drop(one);
        assert!((&mut alone).now_or_never().is_none());
        drop(two);
        let alone = alone.now_or_never().unwrap();
        assert!(turn(4, false).now_or_never().is_none());
        assert_eq!(gate.join(lease(3)), [StartMark { lease: lease(3), alone: true }]);
        drop(alone);
        assert!(turn(4, false).now_or_never().is_some());
    }
}
