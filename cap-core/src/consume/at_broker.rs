//! Retries that a broker keeps: recorded in the store first, then given to the broker; claimed when they come back.
//!
//! The row is the truth. It becomes due by itself one lease after the broker should have brought the message back, so
//! that nothing the broker does can lose the retry; and a copy that the broker brings counts only if the row still
//! waits for exactly that attempt.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::consumer::Consumption;
use super::ending::Ending;
use super::intake::Intake;
use crate::context::Context;
use crate::error::{StorageError, StorageErrorKind, TransportErrorKind};
use crate::faults::{point, sabotaged};
use crate::message::headers::names;
use crate::storage::{Claimed, Lease, Settlement, Side, Verdict};
use crate::subscribe::{Delivery, Ticket};
use crate::transport::{Delayed, Destination, Incoming};

/// Neither store nor broker is waited for any longer: the row becomes due by itself.
const LIMIT: Duration = Duration::from_secs(30);

impl Ending {
    /// Records a failed attempt and has the broker bring the message back to this group.
    pub(crate) async fn retry_at_broker(
        &self,
        ticket: &Ticket,
        delivery: &Delivery,
        after: Duration,
        error: String,
    ) {
        let spare = if sabotaged("never-spare") { Duration::MAX } else { self.context.owner.lease };
        let lease = ticket.lease;
        let recorded = Instant::now();
        let mut message = Arc::clone(&delivery.parts().message);
        Arc::make_mut(&mut message).headers.insert(names::RETRY, format!("{}:{}", lease.id, lease.epoch));
        let delayed =
            [Delayed { message, delay: after, to: Destination::Group(Arc::clone(&self.group.name)) }];
        let verdict = Verdict::RetryAtBroker { after, spare, error };
        let settlement = Settlement { lease, verdict, publishes: Vec::new() };
        if !self.settle_and_wait(settlement, Some(ticket.attempts)).await {
            return;
        }
        point("delay.before").await;
        let answer = timeout(LIMIT, self.context.transport.delay(&delayed)).await;
        point("delay.after").await;
        let error = match answer.map(|answers| answers.into_iter().next()) {
            Ok(Some(Ok(()))) => return,
            Ok(Some(Err(error))) => error,
            Ok(None) | Err(_) => self.context.no_answer(),
        };
        if error.kind() == TransportErrorKind::DestinationFull {
            // One line a message would be too many for a full delay queue.
            metrics::counter!("cap_rejected_total").increment(1);
            tracing::debug!(row = lease.id, %error, "rejected by the broker, the storage keeps this retry");
        } else {
            tracing::warn!(row = lease.id, %error, "the broker cannot keep a retry; the store does");
        }
        self.keep_in_store(lease, after.saturating_sub(recorded.elapsed())).await;
    }

    /// Has the row become due in time by itself.
    async fn keep_in_store(&self, lease: Lease, after: Duration) {
        let claimed = match claim(&self.context, &[lease]).await {
            Ok(claimed) => claimed.into_iter().flatten().next(),
            Err(error) => {
                tracing::warn!(row = lease.id, %error, "the retry comes later than it should");
                None
            }
        };
        if let Some(claimed) = claimed {
            // Zero would mean: as long due as it is old.
            let verdict = Verdict::Release { after: after.max(Duration::from_micros(1)) };
            let settlement = Settlement { lease: claimed.lease, verdict, publishes: Vec::new() };
            self.settle_and_wait(settlement, None).await;
        }
    }
}

impl Consumption {
    /// The row that a delivery from a delay queue speaks of, if it was kept for this group.
    pub(super) fn retry_of(&self, delivery: &Incoming) -> Option<Lease> {
        let headers = Some(&delivery.headers).filter(|_| delivery.delayed)?;
        // Another group's retry that somebody has moved here would take the row from that group.
        headers.get(names::GROUP).filter(|group| **group == *self.group.name)?;
        let (id, epoch) = headers.get(names::RETRY)?.split_once(':')?;
        Some(Lease { id: id.parse().ok()?, epoch: epoch.parse().ok()? })
    }

    /// Claims the rows of messages that came back from a delay, and gives back those that are still wanted. A store
    /// that cannot be asked is not waited for: the rows become due by themselves.
    pub(super) async fn resume(&self, leases: &[Lease]) -> Vec<Intake> {
        let claimed = match claim(&self.context, leases).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.context.storage_health.down(&error);
                return Vec::new();
            }
        };
        let wanted: Vec<Intake> = claimed.into_iter().flatten().filter_map(|row| self.take_up(row)).collect();
        tracing::debug!(
            group = &*self.group.name,
            came = leases.len(),
            wanted = wanted.len(),
            "came back from a delay"
        );
        wanted
    }

    fn take_up(&self, claimed: Claimed) -> Option<Intake> {
        if claimed.group != self.group.name {
            // Somebody has made this up. When the row was due is not known any more: nobody renews the lease.
            return None;
        }
        let cancelled = self.context.stop.handlers.child_token();
        self.context.leases.add(Side::Inbox, claimed.lease, Some(cancelled.clone()));
        Some(Intake::claimed(claimed, cancelled))
    }
}

async fn claim(context: &Context, leases: &[Lease]) -> Result<Vec<Option<Claimed>>, StorageError> {
    timeout(LIMIT, context.storage.claim_waiting(&context.owner, leases)).await.unwrap_or_else(|_| {
        let text = format!("a claim took longer than {LIMIT:?}");
        Err(StorageError::new(StorageErrorKind::Unavailable, context.storage.name(), text))
    })
}
