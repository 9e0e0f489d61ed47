//! What every part of a running bus shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::bus::OwnBus;
use crate::error::{TransportError, TransportErrorKind};
use crate::handlers::{Activity, Classify, States};
use crate::operate::failure_callback::NoticeQueues;
use crate::publish::composer::Composer;
use crate::publish::{FullDestinations, LateCommits, OpenCommits, OpenPlaces, RelayItem};
use crate::runtime::due_times::DueTimes;
use crate::runtime::erased::{DynStorage, DynTransport};
use crate::runtime::health::{Phase, Tracker};
use crate::runtime::lease_book::LeaseBook;
use crate::runtime::options::CapOptions;
use crate::runtime::phase::CurrentPhase;
use crate::runtime::repeated_events::Repeats;
use crate::runtime::retry_proof::RetryProofs;
use crate::runtime::suspect_gate::SuspectGate;
use crate::storage::{Owner, Retention, Side};
use crate::writer::{InsertItem, OutcomeItem};

/// What every part of a running bus shares. The tasks hold it; the user's handle owns the tasks.
pub(crate) struct Context {
    pub(crate) composer: Arc<Composer>,
    pub(crate) storage: Arc<dyn DynStorage>,
    pub(crate) transport: Arc<dyn DynTransport>,
    pub(crate) owner: Owner,
    pub(crate) states: Arc<States>,
    /// What says more about handlers' errors.
    pub(crate) classify: Option<Classify>,
    pub(crate) leases: LeaseBook,
    /// How busy each handler is.
    pub(crate) activities: Vec<Arc<Activity>>,
    pub(crate) suspects: SuspectGate,
    /// What tells this storage's retries that come back from the broker from forged ones.
    pub(crate) retry_proofs: RetryProofs,
    pub(crate) due: DueTimes,
    pub(crate) storage_health: Tracker,
    pub(crate) transport_health: Tracker,
    pub(crate) phase: CurrentPhase,
    /// How many groups of this bus the broker has not heard of yet, those apart whose queues are somebody else's.
    /// Nothing is sent before it has heard of all, or a bus that starts without its broker would send messages past
    /// its own queues.
    pub(crate) undeclared: watch::Sender<usize>,
    /// To the insert writer.
    pub(crate) store: mpsc::Sender<InsertItem>,
    /// To the outcome writer.
    pub(crate) complete: mpsc::Sender<OutcomeItem>,
    /// To the relay.
    pub(crate) relay: mpsc::Sender<RelayItem>,
    /// The relay's places that open transactions have taken.
    pub(crate) open_places: OpenPlaces,
    /// The topics for which the broker has no room.
    pub(crate) full_destinations: FullDestinations,
    /// What was committed late, or perhaps.
    pub(crate) late_commits: LateCommits,
    /// What was stored in plain transactions.
    pub(crate) open_commits: OpenCommits,
    /// More is waiting in the store than the relay may hold: new messages queue up behind it there.
    pub(crate) backlog: AtomicBool,
    /// To the task that tells an operator; `None` when nobody wants to know.
    pub(crate) notices: Option<NoticeQueues>,
    /// What has been logged already.
    pub(crate) repeats: Repeats,
    pub(crate) stop: Stop,
    /// What handlers and the callback that tells an operator have of the bus itself.
    pub(crate) bus: OwnBus,
}

/// The ends of a bus's life, each before the next.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    /// No new work is taken: consumers, claims, publishes.
    pub(crate) intake: CancellationToken,
    /// What running handlers look at, to stop early.
    pub(crate) handlers: CancellationToken,
    /// The relay sends what it has, and ends.
    pub(crate) relay: CancellationToken,
    /// The writers write what they have, and end.
    pub(crate) lanes: CancellationToken,
    /// Everything that is still there is dropped.
    pub(crate) everything: CancellationToken,
}

impl Stop {
    /// Ends everything at once.
    pub(crate) fn cancel_all(&self) {
        for token in [&self.intake, &self.handlers, &self.relay, &self.lanes, &self.everything] {
            token.cancel();
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({})", self.owner.node)
    }
}

impl Context {
    pub(crate) fn options(&self) -> &CapOptions {
        &self.composer.options
    }

    pub(crate) fn is_backlogged(&self) -> bool {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Whether someone must be told when a message fails for good.
    pub(crate) fn notifies(&self) -> bool {
        self.notices.is_some()
    }

    /// What to keep of a message that succeeded: nothing but itself if all went straight through, since it then
    /// expires by its age; a state row with its own expiry if it has failed before or has been waiting, since its
    /// age then says little.
    pub(crate) fn retention(&self, attempts: u32, age: Duration) -> Retention {
        let keep = self.options().succeeded_expire_after;
        if keep.is_zero() {
            Retention::Delete
        } else if attempts == 0 && age < keep / 10 {
            Retention::Forget
        } else {
            Retention::Keep(keep)
        }
    }

    /// What a message's outcome is when its transport says nothing of it.
    pub(crate) fn no_answer(&self) -> TransportError {
        let text = "the transport gave no answer for a message";
        TransportError::new(TransportErrorKind::Unavailable, self.transport.name(), text)
    }

    /// Waits until the bus has its store and its worker id; `false` if it stops first.
    pub(crate) async fn ready(&self) -> bool {
        self.stop.intake.run_until_cancelled(self.phase.started()).await == Some(Phase::Running)
    }

    /// Notes rows that a side's claims will find.
    pub(crate) fn wake(&self, side: Side) {
        self.due.wake.wake(side);
    }
}
