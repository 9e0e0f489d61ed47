//! Telling an operator that a message has failed for good.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bus::{Cap, OwnBus};
use crate::error::error_text;
use crate::message::Message;
use crate::runtime::context::Context;
use crate::runtime::repeated_events::{Event, Repeats};
use crate::storage::{Lease, Reason, RowCompletion, RowOutcome, Side};
use crate::writer::OutcomeItem;

/// A message that failed for good and now waits for an operator: what the callback given to
/// [`CapBuilder::on_failed`](crate::CapBuilder::on_failed) is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// Whether it failed to be published or to be handled.
    pub side: Side,
    /// The row's id, by which [`BusMonitor::rerun`](crate::BusMonitor::rerun) runs it again.
    pub id: i64,
    /// The message.
    pub message: Arc<Message>,
    /// The receiving group; empty for a message that could not be published.
    pub group: Arc<str>,
    /// Why no attempt follows.
    pub reason: Reason,
    /// What went wrong last.
    pub error: String,
    /// How many attempts have failed.
    pub attempts: u32,
    pub(crate) lease: Lease,
    pub(crate) bus: OwnBus,
}

impl Failure {
    /// The bus that it happened on, to run the message again or to publish something; `None` if the last handle to it
    /// has just been dropped. Nothing here waits for the callback, save the next one and a shutdown.
    ///
    /// ```
    /// use cap_core::prelude::*;
    /// use cap_core::storage::Side;
    ///
    /// async fn once_more(failure: Failure) {
    ///     // What was down at night may be up by now: what was received gets a second round, once.
    ///     let Some(cap) = failure.bus() else { return };
    ///     match cap.monitor().get(Side::Inbox, failure.id).await {
    ///         Ok(Some(row)) if row.reruns == 0 => {
    ///             let again = cap.parked().by("the night watch").rerun(&[row.id]).await;
    ///             println!("{}: {again:?}", row.id);
    ///         }
    ///         _ => println!("{}: {}", failure.id, failure.error),
    ///     }
    /// }
    ///
    /// let builder = Cap::builder().on_failed(once_more);
    /// ```
    #[must_use]
    pub fn bus(&self) -> Option<Cap> {
        self.bus.get()
    }

    /// Says it in the log. Of several in one group for one reason the first is written, the others are counted; each is
    /// in [`Cap::parked`].
    fn log(&self, repeats: &Repeats) {
        let (row, side, group, reason) = (self.id, self.side, &*self.group, self.reason.as_str());
        let (message_id, topic) = (self.message.id(), self.message.name());
        let (attempts, error) = (self.attempts, &*self.error);
        if repeats.is_first(Event::FailedForGood, &self.group, reason) {
            tracing::error!(
                row,
                ?side,
                message_id,
                topic,
                group,
                reason,
                attempts,
                error,
                "{FAILED_FOR_GOOD}"
            );
        } else {
            tracing::debug!(
                row,
                ?side,
                message_id,
                topic,
                group,
                reason,
                attempts,
                error,
                "{FAILED_FOR_GOOD}"
            );
        }
    }
}

const FAILED_FOR_GOOD: &str =
    "message failed for good; it is parked until an operator acts, see cap.parked()";

type Callback = dyn Fn(Failure) -> BoxFuture<'static, ()> + Send + Sync;

/// What to call when a message has failed for good.
#[derive(Clone)]
pub(crate) struct OnFailed(pub(crate) Arc<Callback>);

impl fmt::Debug for OnFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnFailed")
    }
}

/// A callback that takes longer is given up on, so that one that hangs does not silence the rest.
const LIMIT: Duration = Duration::from_mins(1);

/// The ends of the queues of those that are to be told of.
pub(crate) struct Notices {
    /// Messages whose handler has failed, or that could not be published.
    failures: mpsc::Receiver<Failure>,
    /// Messages that were parked as they came: of those anybody who may write to a topic can make as many as they like.
    parked: mpsc::Receiver<Failure>,
}

/// The other ends.
#[derive(Debug)]
pub(crate) struct NoticeQueues {
    failures: mpsc::Sender<Failure>,
    parked: mpsc::Sender<Failure>,
}

/// So many wait in memory in each of the two queues. More wait in the store.
const QUEUED: usize = 64;

impl NoticeQueues {
    pub(crate) fn new() -> (Self, Notices) {
        let ((failures, next_failure), (parked, next_parked)) =
            (mpsc::channel(QUEUED), mpsc::channel(QUEUED));
        (Self { failures, parked }, Notices { failures: next_failure, parked: next_parked })
    }

    fn of(&self, reason: Reason) -> &mpsc::Sender<Failure> {
        if reason.is_about_input() { &self.parked } else { &self.failures }
    }
}

/// Calls the callback for one failure after another, and marks each as told once it has returned. A failure whose
/// node dies before that is told by another when the lease runs out.
pub(crate) async fn tell(context: Arc<Context>, mut notices: Notices, on_failed: OnFailed) {
    let drain = context.stop.relay.clone();
    while let Some(failure) = notices.next(&drain).await {
        let (side, lease) = (failure.side, failure.lease);
        // While it waited its lease may have been lost; another tells of it, or has told by now.
        if !context.leases.holds(side, lease) {
            continue;
        }
        failure.log(&context.repeats);
        let call = AssertUnwindSafe(async { (on_failed.0)(failure).await }).catch_unwind();
        match tokio::time::timeout(LIMIT, call).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!(row = lease.id, "the on_failed callback panicked"),
            Err(_) => tracing::error!(row = lease.id, "the on_failed callback took longer than {LIMIT:?}"),
        }
        let row_completion = RowCompletion { lease, outcome: RowOutcome::Notified, publishes: Vec::new() };
        // The lane ends after this task; were it gone, the notice would be given again elsewhere.
        let _ = context.complete.send(OutcomeItem::new(side, row_completion)).await;
    }
}

impl Notices {
    /// The next failure, what was parked as it came behind all others; `None` once the bus drains and none is left.
    async fn next(&mut self, drain: &CancellationToken) -> Option<Failure> {
        let next = async {
            // Biased: parked input waits for as long as there are failures. A receive that is dropped takes nothing
            // with it, here and when the bus drains.
            tokio::select! {
                biased;
                Some(failure) = self.failures.recv() => Some(failure),
                Some(failure) = self.parked.recv() => Some(failure),
                else => None,
            }
        };
        if let Some(failure) = drain.run_until_cancelled(next).await {
            return failure;
        }
        self.failures.close();
        self.parked.close();
        match self.failures.recv().await {
            Some(failure) => Some(failure),
            None => self.parked.recv().await,
        }
    }
}

impl Context {
    /// Has an operator told of a failure, or says it in the log where no callback does.
    pub(crate) fn failed_for_good(&self, mut failure: Failure) {
        failure.error = error_text(failure.error);
        if self.notifies() {
            self.notify(failure);
        } else {
            failure.log(&self.repeats);
        }
    }

    /// Hands a failure to the task that tells an operator. When its queue is full the notice is left to the claims,
    /// which find it when the lease has run out.
    pub(crate) fn notify(&self, mut failure: Failure) {
        failure.error = error_text(failure.error);
        let (side, lease) = (failure.side, failure.lease);
        // Before it is sent: who takes it looks whether it is held.
        self.leases.add(side, lease, None);
        let sent =
            self.notices.as_ref().is_some_and(|notices| notices.of(failure.reason).try_send(failure).is_ok());
        if !sent {
            self.leases.remove(side, lease);
        }
    }
}
