//! Retries that a broker keeps: recorded in the store first, then given to the broker; claimed when they come back.
//!
//! The row is the truth. It becomes due by itself one lease after the broker should have brought the message back, so
//! that nothing the broker does can lose the retry. What the broker keeps is a copy that only names the row: it has no
//! body, and no header that a sender wrote. It counts only if it carries the proof that a node of this storage has sent
//! it to this group, and if the row still waits for exactly that attempt.

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

/// Neither store nor broker is waited for any longer: the row becomes due by itself.
const LIMIT: Duration = Duration::from_secs(30);

impl Ending {
    /// Records a failed attempt and has the broker bring the message back to this group.
    pub(crate) async fn retry_at_broker(&self, job: &Job, after: Duration, error: String) {
        let spare = self.inbox.engine.storage.owner.lease;
        let lease = job.lease();
        let recorded = Instant::now();
        let message = Arc::new(Message::new(self.headers_of_copy(lease, &job.delivery), Bytes::new()));
        let delayed =
            [Delayed { message, delay: after, to: Destination::Group(Arc::clone(&self.group.name)) }];
        let outcome = RowOutcome::RetryAtBroker { after, spare, error };
        if !self.complete_and_wait(lease, outcome, Some(job.received.in_flight.attempts)).await {
            return;
        }
        point("delay.before").await;
        let answer = timeout(LIMIT, self.inbox.engine.broker.delay(&delayed)).await;
        point("delay.after").await;
        let error = match answer.map(|answers| answers.into_iter().next()) {
            Ok(Some(Ok(()))) => return,
            Ok(Some(Err(error))) => error,
            Ok(None) | Err(_) => self.inbox.engine.broker.no_answer(),
        };
        if error.kind() == TransportErrorKind::DestinationFull {
            // One line a message would be too many for a full delay queue.
            metrics::counter!("cap_rejected_total").increment(1);
            tracing::debug!(row = lease.id, %error, "broker rejected a delayed retry; the storage keeps it");
        } else {
            tracing::warn!(row = lease.id, %error, "broker cannot keep a delayed retry; the storage keeps it");
        }
        self.keep_in_store(lease, after.saturating_sub(recorded.elapsed())).await;
    }

    /// Whether a failed attempt of this group may be followed by one that the broker brings.
    pub(super) fn may_retry_at_broker(&self) -> bool {
        self.inbox.engine.broker.retry_proofs.are_possible()
            && self.inbox.engine.broker.can_delay_retries(&self.group.name)
    }

    /// What a copy carries: the row with its proof; and id, name and group, by which people and earlier versions know it.
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

    /// Has the row become due in time by itself.
    async fn keep_in_store(&self, lease: Lease, after: Duration) {
        let claimed = match claim(&self.inbox.engine, &[lease]).await {
            Ok(claimed) => claimed.into_iter().flatten().next(),
            Err(error) => {
                tracing::warn!(row = lease.id, %error, "retry is made later than scheduled");
                None
            }
        };
        if let Some(claimed) = claimed {
            // Zero would mean: as long due as it is old.
            let outcome = RowOutcome::Release { after: after.max(Duration::from_micros(1)) };
            self.complete_and_wait(claimed.lease, outcome, None).await;
        }
    }
}
