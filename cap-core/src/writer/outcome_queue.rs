//! Outcomes on their way to the outcome writer.

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::after_write::AfterWrite;
use crate::error::error_text;
use crate::storage::{Lease, RowCompletion, RowOutcome, Side};

/// The way to the outcome writer.
#[derive(Debug, Clone)]
pub(crate) struct OutcomeQueue(mpsc::Sender<OutcomeItem>);

impl OutcomeQueue {
    /// A queue with room for so many outcomes, and its other end.
    pub(crate) fn new(capacity: usize) -> (Self, mpsc::Receiver<OutcomeItem>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self(sender), receiver)
    }

    /// Hands over an outcome, and waits for room if the storage is behind. The writer ends after everything that hands
    /// outcomes to it; were it gone, the lease would expire and the message be worked on again.
    pub(crate) async fn send(&self, item: OutcomeItem) {
        let _ = self.0.send(item).await;
    }

    /// As [`send`](Self::send), for somebody who must not wait: gives the outcome back when the queue is full.
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

    /// Hands over what becomes of a row, with nothing that follows from it.
    pub(crate) async fn write(&self, side: Side, lease: Lease, outcome: RowOutcome) {
        self.send(OutcomeItem::of(side, lease, outcome)).await;
    }

    /// Hands over an outcome, waits until it is stored, and says whether the lease held. `false` also if the bus stops
    /// first.
    pub(crate) async fn send_and_wait(&self, item: OutcomeItem) -> bool {
        let (item, applied) = item.awaited();
        self.0.send(item).await.is_ok() && applied.await.unwrap_or(false)
    }
}

/// An outcome to be written, what follows from it in memory, and perhaps someone who waits.
pub(crate) struct OutcomeItem {
    pub(super) side: Side,
    pub(super) row_completion: RowCompletion,
    pub(super) after_write: Option<Box<dyn AfterWrite>>,
    pub(super) reply: Option<oneshot::Sender<bool>>,
    /// Nobody here has the message any more: if something is to follow, the claims find it.
    pub(super) left_to_claims: bool,
    /// How many attempts had failed before the one that it counts, if it counts one.
    pub(super) attempts: Option<u32>,
    /// It may have been written already: the answer was lost.
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

    /// What becomes of a row, with nothing to be published along.
    pub(crate) fn of(side: Side, lease: Lease, outcome: RowOutcome) -> Self {
        Self::new(side, RowCompletion { lease, outcome, publishes: Vec::new() })
    }

    /// Says which attempt it counts, so that a word which may have been heard is not counted twice.
    pub(crate) fn counting(mut self, failed_before: u32) -> Self {
        self.attempts = Some(failed_before);
        self
    }

    /// The row's id.
    pub(super) fn row(&self) -> i64 {
        self.row_completion.lease.id
    }

    /// Whether the row stays with this node: then the same word, said twice, would be heard twice.
    pub(super) fn row_stays(&self) -> bool {
        matches!(
            self.row_completion.outcome,
            RowOutcome::Retry { hold: true, .. } | RowOutcome::Failed { notify: true, .. }
        )
    }

    /// With messages to be relayed once they are stored.
    pub(crate) fn with_after_write(mut self, after_write: Box<dyn AfterWrite>) -> Self {
        self.after_write = Some(after_write);
        self
    }

    /// With someone who waits to hear whether the lease held.
    pub(crate) fn awaited(mut self) -> (Self, oneshot::Receiver<bool>) {
        let (reply, receiver) = oneshot::channel();
        self.reply = Some(reply);
        (self, receiver)
    }
}

/// The error text in an outcome.
pub(super) fn error_in(outcome: &mut RowOutcome) -> Option<&mut String> {
    match outcome {
        RowOutcome::Retry { error, .. }
        | RowOutcome::RetryAtBroker { error, .. }
        | RowOutcome::Failed { error, .. } => Some(error),
        RowOutcome::Succeeded { .. } | RowOutcome::Notified | RowOutcome::Release { .. } => None,
    }
}
