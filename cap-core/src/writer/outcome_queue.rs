//! The queue of outcomes in front of the outcome writer.

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::after_write::AfterWrite;
use crate::error::error_text;
use crate::storage::{Lease, RowCompletion, RowOutcome, Side};

/// The sending end of the queue to the outcome writer.
#[derive(Debug, Clone)]
pub(crate) struct OutcomeQueue(mpsc::Sender<OutcomeItem>);

impl OutcomeQueue {
    /// Creates a queue with room for `capacity` outcomes, and its receiving end.
    pub(crate) fn new(capacity: usize) -> (Self, mpsc::Receiver<OutcomeItem>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self(sender), receiver)
    }

    /// Queues an outcome, and waits for room if the storage is slow. The writer ends after every task that sends to it; if
    /// it had ended earlier, the lease would expire and the message would be processed again.
    pub(crate) async fn send(&self, item: OutcomeItem) {
        let _ = self.0.send(item).await;
    }

    /// Queues an outcome as [`send`](Self::send) does, but without waiting: returns the outcome if the queue is full.
    #[allow(
        clippy::result_large_err,
        reason = "the error is the item itself, moved once more in the rare case"
    )]
    pub(crate) fn try_send(&self, item: OutcomeItem) -> Result<(), OutcomeItem> {
        match self.0.try_send(item) {
            Err(TrySendError::Full(item)) => Err(item),
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Queues the outcome of a row that nothing in memory depends on.
    pub(crate) async fn write(&self, side: Side, lease: Lease, outcome: RowOutcome) {
        self.send(OutcomeItem::of(side, lease, outcome)).await;
    }

    /// Queues an outcome, waits until it is written, and returns whether this node still had the lease. Also returns
    /// `false` if the bus stops first.
    pub(crate) async fn send_and_wait(&self, item: OutcomeItem) -> bool {
        let (item, applied) = item.awaited();
        self.0.send(item).await.is_ok() && applied.await.unwrap_or(false)
    }
}

/// An outcome to be written, what happens in memory afterwards, and the channel for a reply if a caller waits.
pub(crate) struct OutcomeItem {
    pub(super) side: Side,
    pub(super) row_completion: RowCompletion,
    pub(super) after_write: Option<Box<dyn AfterWrite>>,
    pub(super) reply: Option<oneshot::Sender<bool>>,
    /// No task here works on the message any more: if anything is left to do, the claims find the row.
    pub(super) left_to_claims: bool,
    /// If this outcome counts a failed attempt, how many attempts had failed before.
    pub(super) attempts: Option<u32>,
    /// The outcome may have been written already: the answer of an earlier write was lost.
    pub(super) repeated: bool,
}

impl OutcomeItem {
    pub(crate) fn new(side: Side, mut row_completion: RowCompletion) -> Self {
        if let Some(error) = error_in(&mut row_completion.outcome) {
            *error = error_text(&*error);
        }
        Self {
            side,
            row_completion,
            after_write: None,
            reply: None,
            left_to_claims: false,
            attempts: None,
            repeated: false,
        }
    }

    /// Creates the outcome of a row without messages to publish.
    pub(crate) fn of(side: Side, lease: Lease, outcome: RowOutcome) -> Self {
        Self::new(side, RowCompletion { lease, outcome, publishes: Vec::new() })
    }

    /// Sets how many attempts had failed before, so that this attempt is not counted twice after a lost answer.
    pub(crate) fn counting(mut self, failed_before: u32) -> Self {
        self.attempts = Some(failed_before);
        self
    }

    /// The row's id.
    pub(super) fn row(&self) -> i64 {
        self.row_completion.lease.id
    }

    /// Whether this node keeps the lease after this outcome. If so, the fence does not stop a second write of it.
    pub(super) fn row_stays(&self) -> bool {
        matches!(
            self.row_completion.outcome,
            RowOutcome::Retry { hold: true, .. } | RowOutcome::Failed { notify: true, .. }
        )
    }

    /// Sets what happens to the published messages once they are stored.
    pub(crate) fn with_after_write(mut self, after_write: Box<dyn AfterWrite>) -> Self {
        self.after_write = Some(after_write);
        self
    }

    /// Adds a reply channel: it receives whether this node still had the lease.
    pub(crate) fn awaited(mut self) -> (Self, oneshot::Receiver<bool>) {
        let (reply, receiver) = oneshot::channel();
        self.reply = Some(reply);
        (self, receiver)
    }
}

/// The error text of an outcome, if it has one.
pub(super) fn error_in(outcome: &mut RowOutcome) -> Option<&mut String> {
    match outcome {
        RowOutcome::Retry { error, .. }
        | RowOutcome::RetryAtBroker { error, .. }
        | RowOutcome::Failed { error, .. } => Some(error),
        RowOutcome::Succeeded { .. } | RowOutcome::Notified | RowOutcome::Release { .. } => None,
    }
}
