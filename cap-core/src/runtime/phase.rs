//! Where the bus is in its life, and waiting for it to be up.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::runtime::health::Phase;

/// The phase that the bus is in. Those who wait for it to be up go on in the order in which they came.
#[derive(Debug)]
pub(crate) struct CurrentPhase {
    phase: Mutex<Phase>,
    changed: Notify,
}

impl CurrentPhase {
    /// A bus that starts.
    pub(crate) fn starting() -> Self {
        Self { phase: Mutex::new(Phase::Starting), changed: Notify::new() }
    }

    pub(crate) fn get(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store has answered: the bus is up, unless it stops already.
    pub(crate) fn is_up(&self) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if *phase == Phase::Starting {
            *phase = Phase::Running;
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn set(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.changed.notify_waiters();
    }

    /// Waits until the bus is up, or stops before it ever was.
    pub(crate) async fn started(&self) -> Phase {
        loop {
            // Before looking, so that a change in between is not missed.
            let changed = self.changed.notified();
            match self.get() {
                Phase::Starting => changed.await,
                phase => return phase,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_wait_hear_of_the_start_and_of_an_early_end() {
        for (up, end) in [(true, Phase::Running), (false, Phase::Stopping)] {
            let phase = CurrentPhase::starting();
            let change = async { if up { phase.is_up() } else { phase.set(Phase::Stopping) } };
            let (one, two, ()) = tokio::join!(phase.started(), phase.started(), change);
            assert_eq!([one, two, phase.started().await], [end; 3]);
            phase.set(Phase::Stopped);
            phase.is_up();
            assert_eq!(phase.get(), Phase::Stopped);
        }
    }
}
