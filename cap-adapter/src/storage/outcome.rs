//! The outcome of an attempt.

use std::time::Duration;

use super::insert::{NewOutgoing, Stored};
use super::row::{Lease, Reason};

/// The outcome of a message under a lease.
#[derive(Debug, Clone)]
pub struct RowCompletion {
    /// The lease of the attempt. If the row has another epoch by now, or no state row, nothing happens.
    pub lease: Lease,
    /// The outcome.
    pub outcome: RowOutcome,
    /// Messages to insert into the outbox in the same transaction, if and only if the lease is valid. Only for the
    /// inbox.
    pub publishes: Vec<NewOutgoing>,
}

impl RowCompletion {
    /// Logs a warning for each message that was not published with the outcome because its message id is in use. For
    /// storages, after the lease was found valid; `stored` are the results of the inserts.
    pub fn warn_of_duplicates(&self, stored: impl IntoIterator<Item = Stored>) {
        for (new, _) in self.publishes.iter().zip(stored).filter(|(_, stored)| *stored == Stored::Duplicate) {
            tracing::warn!(
                target: "cap_core::storage",
                row = self.lease.id,
                message_id = new.message.id(),
                topic = new.message.name(),
                "message published by this handler dropped: message id already in the outbox"
            );
        }
    }
}

/// The new state of a row.
#[derive(Debug, Clone)]
pub enum RowOutcome {
    /// Finished.
    Succeeded {
        /// What to keep.
        retention: Retention,
        /// [`Reason::Unrouted`] if the broker found no queue. With a reason the state row is always kept.
        reason: Option<Reason>,
    },
    /// An attempt failed and another follows. The row becomes [`Status::Retrying`](crate::storage::Status::Retrying) with one more attempt.
    Retry {
        /// When it is due again.
        after: Duration,
        /// Whether this node retries at once under the same lease; `after` is then ignored, and `due` becomes the end
        /// of the lease.
        hold: bool,
        /// The error.
        error: String,
    },
    /// An attempt failed, and the broker keeps a copy that it delivers again when the next one is due; see
    /// [`Storage::claim_waiting`](crate::storage::Storage::claim_waiting). Like [`Retry`](Self::Retry) without a lease, but the row becomes due without the
    /// broker's copy only `spare` later.
    RetryAtBroker {
        /// When the next attempt is due.
        after: Duration,
        /// How much later any node may claim the row without the broker's copy.
        spare: Duration,
        /// The error.
        error: String,
    },
    /// The last attempt failed, or the message cannot be processed further. One more attempt if `counted`.
    Failed {
        /// The reason.
        reason: Reason,
        /// The error.
        error: String,
        /// Whether an attempt was made that counts and is recorded.
        counted: bool,
        /// How long to keep the row.
        keep: Duration,
        /// Whether the failure callback is still to be called. The row then keeps its owner and a `due` at the end of
        /// the lease, so that another node calls it if this one dies; [`Notified`](Self::Notified) ends that.
        notify: bool,
    },
    /// The failure callback was called: the row has no owner and is not due any more.
    Notified,
    /// Released unchanged: nothing is counted, and the row has no owner.
    Release {
        /// When it is due again. Zero means since the time it was added, so that it comes before newer rows.
        after: Duration,
    },
}

/// The former name of [`RowCompletion`].
#[deprecated(note = "renamed to RowCompletion")]
pub type Settlement = RowCompletion;

/// The former name of [`RowOutcome`].
#[deprecated(note = "renamed to RowOutcome")]
pub type Verdict = RowOutcome;

/// How long a message that succeeded is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// No state row is kept. The message expires by its age; see [`Expiry::succeeded`](crate::storage::Expiry::succeeded).
    Forget,
    /// The state row is kept as [`Status::Succeeded`](crate::storage::Status::Succeeded) and expires after this time from now.
    Keep(Duration),
    /// Message, state and attempts are deleted at once.
    Delete,
}
