//! How a failure reaches the operator: by a log line, and by a queue to the task that calls the failure callback.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::error_text;
use crate::message::Message;
use crate::runtime::lease_book::LeaseBook;
use crate::runtime::repeated_events::{Event, RepeatedEvents};
use crate::storage::{Lease, Reason, Side};

/// The capacity of each of the two queues. Further failures wait in the storage.
const QUEUED: usize = 64;

const FAILED_FOR_GOOD: &str =
    "message failed for good; it is parked until an operator acts, see cap.messages().parked()";

/// A message that has failed for good, or was parked.
#[derive(Debug, Clone)]
pub(crate) struct FailedMessage {
    pub(crate) side: Side,
    pub(crate) lease: Lease,
    pub(crate) message: Arc<Message>,
    /// The receiving group; empty for a message that could not be sent.
    pub(crate) group: Arc<str>,
    pub(crate) reason: Reason,
    /// The error of the last attempt.
    pub(crate) error: String,
    /// How many attempts have failed.
    pub(crate) attempts: u32,
}

impl FailedMessage {
    /// Logs the failure. Of repeated failures in one group for one reason, the first is logged in full and the others are
    /// counted; [`Cap::parked`](crate::Cap::parked) has each of them.
    pub(crate) fn log(&self, repeated: &RepeatedEvents) {
        let (row, side, group, reason) = (self.lease.id, self.side, &*self.group, self.reason.as_str());
        let (message_id, topic) = (self.message.id(), self.message.name());
        let (attempts, error) = (self.attempts, &*self.error);
        macro_rules! failed {
            ($level:ident) => {
                tracing::$level!(
                    row,
                    ?side,
                    message_id,
                    topic,
                    group,
                    reason,
                    attempts,
                    error,
                    "{FAILED_FOR_GOOD}"
                )
            };
        }
        if repeated.is_first(Event::FailedForGood, &self.group, reason) {
            failed!(error);
        } else {
            failed!(debug);
        }
    }
}

/// Passes failures to the task that calls the failure callback, or logs them if there is no callback.
#[derive(Debug)]
pub(crate) struct Notifier(Option<NotificationQueues>);

#[derive(Debug)]
struct NotificationQueues {
    failures: mpsc::Sender<FailedMessage>,
    parked: mpsc::Sender<FailedMessage>,
}

/// The receiving end of a [`Notifier`]: failures that the failure callback is to be called for.
pub(crate) struct Notifications {
    /// Messages whose handler has failed, or that could not be sent.
    failures: mpsc::Receiver<FailedMessage>,
    /// Messages that were parked on receipt. They have a queue of their own, since anyone who may publish to a topic can
    /// cause any number of them.
    parked: mpsc::Receiver<FailedMessage>,
}

impl Notifier {
    /// Creates a notifier and the receiving end of its queues. `has_callback` says whether a task receives from that end.
    pub(crate) fn new(has_callback: bool) -> (Self, Notifications) {
        let ((failures, next_failure), (parked, next_parked)) =
            (mpsc::channel(QUEUED), mpsc::channel(QUEUED));
        let queues = has_callback.then_some(NotificationQueues { failures, parked });
        (Self(queues), Notifications { failures: next_failure, parked: next_parked })
    }

    /// Whether there is a failure callback.
    pub(crate) fn has_callback(&self) -> bool {
        self.0.is_some()
    }

    /// Notifies an operator of a failure, or logs it if there is no callback.
    pub(crate) fn failed_for_good(
        &self,
        leases: &LeaseBook,
        repeated: &RepeatedEvents,
        mut failed: FailedMessage,
    ) {
        failed.error = error_text(failed.error);
        if self.has_callback() {
            self.notify(leases, failed);
        } else {
            failed.log(repeated);
        }
    }

    /// Passes a failure to the task that calls the callback. If its queue is full, the notification is left to the
    /// claims, which find it once the lease has expired.
    pub(crate) fn notify(&self, leases: &LeaseBook, mut failed: FailedMessage) {
        failed.error = error_text(failed.error);
        let (side, lease) = (failed.side, failed.lease);
        // Added before it is sent, since the receiver checks that this node still leases the row.
        leases.add(side, lease, None);
        let sent = self.0.as_ref().is_some_and(|queues| queues.of(failed.reason).try_send(failed).is_ok());
        if !sent {
            leases.remove(side, lease);
        }
    }
}

impl NotificationQueues {
    fn of(&self, reason: Reason) -> &mpsc::Sender<FailedMessage> {
        if reason.is_about_input() { &self.parked } else { &self.failures }
    }
}

impl Notifications {
    /// Receives the next failure; messages parked on receipt come after all others. Returns `None` once the bus drains
    /// and none is left.
    pub(crate) async fn next(&mut self, drain: &CancellationToken) -> Option<FailedMessage> {
        let next = async {
            // Biased: messages parked on receipt wait for as long as there are other failures. `recv` is cancel safe, so
            // that nothing is lost when an arm is dropped, here or when the bus drains.
            tokio::select! {
                biased;
                Some(failed) = self.failures.recv() => Some(failed),
                Some(failed) = self.parked.recv() => Some(failed),
                else => None,
            }
        };
        if let Some(failed) = drain.run_until_cancelled(next).await {
            return failed;
        }
        self.failures.close();
        self.parked.close();
        match self.failures.recv().await {
            Some(failed) => Some(failed),
            None => self.parked.recv().await,
        }
    }
}
