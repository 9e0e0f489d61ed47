//! The current phase of the bus, and waiting until it is up.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::runtime::health::Phase;

/// The phase that the bus is in. Tasks that wait for it to be up resume in the order in which they began to wait.
#[derive(Debug)]
pub(crate) struct CurrentPhase {
    phase: Mutex<Phase>,
    changed: Notify,
}

impl CurrentPhase {
    /// The phase of a bus that is starting.
    pub(crate) fn starting() -> Self {
        Self { phase: Mutex::new(Phase::Starting), changed: Notify::new() }
    }

    pub(crate) fn get(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the storage has answered: the bus is up, unless it is already stopping.
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

    /// Waits until the bus is up, or stops without ever having been up. Returns the phase.
    pub(crate) async fn started(&self) -> Phase {
        loop {
            // Registered before the check, so that a change between the two is not missed.
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
    async fn waiting_ends_when_the_bus_is_up_or_stops_early() {
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
