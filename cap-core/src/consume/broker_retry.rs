//! Retries that are delayed at the broker: recorded in the storage first, then sent to the broker as a copy; the row is
//! claimed when the copy is delivered.
//!
//! The row is authoritative. It becomes due by itself one lease after the broker should have delivered the copy, so that
//! the retry cannot be lost whatever happens at the broker. The copy only names the row: it has neither a body nor headers
//! that a sender wrote. It is accepted only with a proof that a node of this storage has sent it to this group, and only
//! if the row still waits for exactly that attempt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cap_adapter::Delivery;
use tokio::time::{Instant, timeout};

use super::completion::Ending;
use super::received::Job;
use super::retry_copy::claim;
use crate::error::TransportErrorKind;
use crate::faults::point;
use crate::message::headers::names;
use crate::message::{Headers, Message};
use crate::storage::{Lease, RowOutcome};
use crate::transport::{Delayed, Destination};

/// How long the broker may take to accept a copy. After that, the storage keeps the retry.
const DELAY_TIMEOUT: Duration = Duration::from_secs(30);

impl Ending {
    /// Records a failed attempt and has the broker deliver a copy to this group after the delay.
    ///
    /// The attempt is recorded before the copy is sent: a copy that arrives earlier would find no row that waits for it.
    pub(crate) async fn retry_at_broker(&self, job: &Job, after: Duration, error: String) {
        let spare = self.inbox.engine.storage.owner.lease;
        let lease = job.lease();
        let recorded = Instant::now();
        let message = Arc::new(Message::new(self.headers_of_copy(lease, &job.delivery), Bytes::new()));
        let delayed = [Delayed::new(message, after, Destination::Group(Arc::clone(&self.group.name)))];
        let outcome = RowOutcome::RetryAtBroker { after, spare, error };
        if !self.complete_and_wait(lease, outcome, Some(job.received.in_flight.attempts)).await {
            return;
        }
        point("delay.before").await;
        let answer = timeout(DELAY_TIMEOUT, self.inbox.engine.broker.delay(&delayed)).await;
        point("delay.after").await;
        let error = match answer.map(|answers| answers.into_iter().next()) {
            Ok(Some(Ok(()))) => return,
            Ok(Some(Err(error))) => error,
            Ok(None) | Err(_) => self.inbox.engine.broker.no_answer(),
        };
        if error.kind() == TransportErrorKind::DestinationFull {
            // At debug level: a full delay queue would cause a line for each message.
            self.group.metrics.member(Some(job.member)).rejected.increment(1);
            tracing::debug!(row = lease.id, %error, "broker rejected a delayed retry; the storage keeps it");
        } else {
            tracing::warn!(row = lease.id, %error, "broker cannot keep a delayed retry; the storage keeps it");
        }
        self.keep_in_storage(lease, after.saturating_sub(recorded.elapsed())).await;
    }

    /// Whether the next attempt of this group can be delayed at the broker.
    pub(super) fn may_retry_at_broker(&self) -> bool {
        self.inbox.engine.broker.retry_proofs.are_possible()
            && self.inbox.engine.broker.delays_retries_of(&self.group.name)
    }

    /// The headers of a copy: the row with its proof, and the message id, name and group, for operators and earlier
    /// versions.
    fn headers_of_copy(&self, lease: Lease, delivery: &Delivery) -> Headers {
        let group = &*self.group.name;
        let mut headers = Headers::new();
        headers.insert(names::MESSAGE_ID, delivery.message_id().as_str());
        headers.insert(names::MESSAGE_NAME, delivery.topic());
        headers.insert(names::GROUP, group);
        headers.insert(names::RETRY, format!("{}:{}", lease.id, lease.epoch));
        if let Some(proof) = self.inbox.engine.broker.retry_proofs.prove(lease, group) {
            headers.insert(names::RETRY_MAC, proof);
        }
        headers
    }

    /// Claims the row and releases it again with the remaining pause, so that it becomes due on time and not one lease
    /// later.
    async fn keep_in_storage(&self, lease: Lease, after: Duration) {
        let claimed = match claim(&self.inbox.engine, &[lease]).await {
            Ok(claimed) => claimed.into_iter().flatten().next(),
            Err(error) => {
                tracing::warn!(row = lease.id, %error, "retry is made later than scheduled");
                None
            }
        };
        if let Some(claimed) = claimed {
            // Zero would mean that the row is due since it was stored, which would put it before others.
            let outcome = RowOutcome::Release { after: after.max(Duration::from_micros(1)) };
            self.complete_and_wait(claimed.lease, outcome, None).await;
        }
    }
}
