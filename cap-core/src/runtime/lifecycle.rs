//! Where a bus is between its start and its end, and the signals by which its tasks end.

use tokio_util::sync::CancellationToken;

use crate::runtime::health::Phase;
use crate::runtime::phase::CurrentPhase;

/// Where a bus is between its start and its end.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    pub(crate) phase: CurrentPhase,
    pub(crate) stop: Stop,
}

/// The signals by which the tasks of a bus end, each before the next.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    /// No new work is taken: consumers, claims, publishes.
    pub(crate) intake: CancellationToken,
    /// Running handlers see it, so that they can stop early.
    pub(crate) handlers: CancellationToken,
    /// The relay sends what it has, and ends.
    pub(crate) relay: CancellationToken,
    /// The writers write what they have, and end.
    pub(crate) writers: CancellationToken,
    /// Everything that is still running is dropped.
    pub(crate) everything: CancellationToken,
}

impl Lifecycle {
    /// The lifecycle of a bus that starts.
    pub(crate) fn starting() -> Self {
        Self { phase: CurrentPhase::starting(), stop: Stop::default() }
    }

    /// Waits until the bus has its storage and its worker id; `false` if it stops first.
    pub(crate) async fn ready(&self) -> bool {
        self.stop.intake.run_until_cancelled(self.phase.started()).await == Some(Phase::Running)
    }
}

impl Stop {
    /// Ends everything at once.
    pub(crate) fn cancel_all(&self) {
        for token in [&self.intake, &self.handlers, &self.relay, &self.writers, &self.everything] {
            token.cancel();
        }
    }
}
