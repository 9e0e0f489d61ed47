//! The lifecycle of a bus: its current phase, and the signals that end its tasks.

use tokio_util::sync::CancellationToken;

use crate::runtime::health::Phase;
use crate::runtime::phase::CurrentPhase;

/// The current phase of a bus, and the signals that end its tasks.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    pub(crate) phase: CurrentPhase,
    pub(crate) stop: Stop,
}

/// The signals that end the tasks of a bus, in the order in which they are given.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    /// Take no new work: consumers, claims and publishers stop.
    pub(crate) intake: CancellationToken,
    /// Visible to running handlers, so that they can stop early.
    pub(crate) handlers: CancellationToken,
    /// The relay sends the messages that it has, then ends.
    pub(crate) relay: CancellationToken,
    /// The writers write what is queued, then end.
    pub(crate) writers: CancellationToken,
    /// Everything that is still running is dropped.
    pub(crate) everything: CancellationToken,
}

impl Lifecycle {
    /// The lifecycle of a bus that is starting.
    pub(crate) fn starting() -> Self {
        Self { phase: CurrentPhase::starting(), stop: Stop::default() }
    }

    /// Waits until the bus has its storage and its worker id. Returns `false` if it stops first.
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
