//! Retries that a broker keeps: recorded in the store first, then given to the broker; claimed when they come back.
//!
//! The row is the truth. It becomes due by itself one lease after the broker should have brought the message back, so
//! that nothing the broker does can lose the retry. What the broker keeps is a copy that only names the row: it has no
//! body, and no header that a sender wrote. It counts only if it carries the proof that a node of this storage has sent
//! it to this group, and if the row still waits for exactly that attempt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::completion::Ending;
use super::consumer::Consumption;
use super::in_flight::Intake;
use super::inbox_row::verified_user;
use crate::error::{StorageError, StorageErrorKind, TransportError, TransportErrorKind};
use crate::faults::point;
use crate::handlers::{Delivery, Ticket};
use crate::message::headers::names;
use crate::message::{Headers, Message};
use crate::runtime::batch_queue::BATCH_BYTES;
use crate::runtime::context::Context;
use crate::runtime::erased::DynConsumer;
use crate::runtime::repeated_events::Event;
use crate::storage::{Claimed, Lease, RowCompletion, RowOutcome, Side};
use crate::transport::{Delayed, Destination, Incoming, Tag};

/// Neither store nor broker is waited for any longer: the row becomes due by itself.
const LIMIT: Duration = Duration::from_secs(30);

/// What a delivery is with regard to retries that the broker keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// A message, as somebody has sent it.
    Message,
    /// The copy that a node of this storage has sent after the attempt under this lease.
    Copy(Lease),
    /// A copy that is not proved to be ours. It is dropped: it has no body, and no row depends on it.
    RefusedCopy,
}

impl Ending {
    /// Records a failed attempt and has the broker bring the message back to this group.
    pub(crate) async fn retry_at_broker(
        &self,
        ticket: &Ticket,
        delivery: &Delivery,
        after: Duration,
        error: String,
    ) {
        let spare = self.context.owner.lease;
        let lease = ticket.lease;
        let recorded = Instant::now();
        let message = Arc::new(Message::new(self.headers_of_copy(lease, delivery), Bytes::new()));
        let delayed =
            [Delayed { message, delay: after, to: Destination::Group(Arc::clone(&self.group.name)) }];
        let outcome = RowOutcome::RetryAtBroker { after, spare, error };
        let row_completion = RowCompletion { lease, outcome, publishes: Vec::new() };
        if !self.complete_and_wait(row_completion, Some(ticket.attempts)).await {
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
            tracing::debug!(row = lease.id, %error, "broker rejected a delayed retry; the storage keeps it");
        } else {
            tracing::warn!(row = lease.id, %error, "broker cannot keep a delayed retry; the storage keeps it");
        }
        self.keep_in_store(lease, after.saturating_sub(recorded.elapsed())).await;
    }

    /// Whether a failed attempt of this group may be followed by one that the broker brings.
    pub(super) fn may_retry_at_broker(&self) -> bool {
        self.context.retry_proofs.are_possible() && self.context.transport.can_delay_retries(&self.group.name)
    }

    /// What a copy carries: the row with its proof; and id, name and group, by which people and earlier versions know it.
    fn headers_of_copy(&self, lease: Lease, delivery: &Delivery) -> Headers {
        let group = &*self.group.name;
        let mut headers = Headers::new();
        headers.insert(names::MESSAGE_ID, delivery.message_id().as_str());
        headers.insert(names::MESSAGE_NAME, delivery.topic());
        headers.insert(names::GROUP, group);
        headers.insert(names::RETRY, format!("{}:{}", lease.id, lease.epoch));
        if let Some(proof) = self.context.retry_proofs.prove(lease, group) {
            headers.insert(names::RETRY_MAC, proof);
        }
        headers
    }

    /// Has the row become due in time by itself.
    async fn keep_in_store(&self, lease: Lease, after: Duration) {
        let claimed = match claim(&self.context, &[lease]).await {
            Ok(claimed) => claimed.into_iter().flatten().next(),
            Err(error) => {
                tracing::warn!(row = lease.id, %error, "retry is made later than scheduled");
                None
            }
        };
        if let Some(claimed) = claimed {
            // Zero would mean: as long due as it is old.
            let outcome = RowOutcome::Release { after: after.max(Duration::from_micros(1)) };
            let row_completion = RowCompletion { lease: claimed.lease, outcome, publishes: Vec::new() };
            self.complete_and_wait(row_completion, None).await;
        }
    }
}

impl Consumption {
    /// What a delivery is with regard to retries that the broker keeps. How it came does not count: a sender can write any
    /// header, `x-death` too.
    pub(super) fn copy_of(&self, delivery: &Incoming) -> Received {
        let headers = &delivery.headers;
        if !headers.contains(names::RETRY) {
            return Received::Message;
        }
        let lease = headers.get(names::RETRY).and_then(lease);
        let Some(proof) = headers.get(names::RETRY_MAC) else {
            // Before there were proofs, a copy was known by its way. Its row becomes due by itself.
            let group = headers.get(names::GROUP) == Some(&*self.group.name);
            return match lease {
                Some(_) if group && delivery.delayed => self.refused(delivery, lease, "it carries no proof"),
                _ => Received::Message,
            };
        };
        match lease {
            Some(lease) if self.context.retry_proofs.is_proof(proof, lease, &self.group.name) => {
                Received::Copy(lease)
            }
            _ => self.refused(delivery, lease, "its proof is wrong"),
        }
    }

    fn refused(&self, delivery: &Incoming, lease: Option<Lease>, reason: &'static str) -> Received {
        metrics::counter!("cap_retry_copies_refused_total").increment(1);
        let (group, row) = (&*self.group.name, lease.map(|lease| lease.id));
        let user = verified_user(&delivery.properties);
        if self.context.repeats.is_first(Event::CopyRefused, &self.group.name, reason) {
            tracing::warn!(
                group,
                row,
                user,
                reason,
                "retry copy dropped: the broker brought one that is not ours"
            );
        } else {
            tracing::debug!(group, row, user, reason, "retry copy dropped");
        }
        Received::RefusedCopy
    }

    /// Goes on with messages that came back from a delay. Their bodies are read from the store, and nobody knows how large
    /// they are: one first, then as many at once as fit into a batch, while there is room for them.
    pub(super) async fn keep_retries(
        &self,
        consumer: &mut dyn DynConsumer,
        retries: &[(Lease, Tag)],
    ) -> Result<(), TransportError> {
        let (mut rest, mut largest) = (retries, BATCH_BYTES);
        while !rest.is_empty() {
            self.channels.room.opens().await;
            let (part, later) = rest.split_at(rest.len().min(BATCH_BYTES / largest).max(1));
            let (leases, tags): (Vec<Lease>, Vec<Tag>) = part.iter().copied().unzip();
            let wanted = self.resume(&leases).await;
            largest = wanted.iter().map(|intake| intake.message.size()).max().unwrap_or(largest).max(1);
            self.acknowledge(consumer, &tags, wanted).await?;
            rest = later;
        }
        Ok(())
    }

    /// Claims the rows of messages that came back from a delay, and gives back those that are still wanted. A store
    /// that cannot be asked is not waited for: the rows become due by themselves.
    async fn resume(&self, leases: &[Lease]) -> Vec<Intake> {
        let claimed = match claim(&self.context, leases).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.context.storage_health.down(&error);
                return Vec::new();
            }
        };
        let wanted: Vec<Intake> = claimed.into_iter().flatten().map(|row| self.take_up(row)).collect();
        tracing::debug!(
            group = &*self.group.name,
            came = leases.len(),
            wanted = wanted.len(),
            "received from a delay queue"
        );
        wanted
    }

    fn take_up(&self, claimed: Claimed) -> Intake {
        let cancelled = self.context.stop.handlers.child_token();
        self.context.leases.add(Side::Inbox, claimed.lease, Some(cancelled.clone()));
        Intake::claimed(claimed, &self.channels.room, cancelled)
    }
}

/// The row and the claim that a copy names.
fn lease(text: &str) -> Option<Lease> {
    let (id, epoch) = text.split_once(':')?;
    Some(Lease { id: id.parse().ok()?, epoch: epoch.parse().ok()? })
}

async fn claim(context: &Context, leases: &[Lease]) -> Result<Vec<Option<Claimed>>, StorageError> {
    timeout(LIMIT, context.storage.claim_waiting(&context.owner, leases)).await.unwrap_or_else(|_| {
        let text = format!("a claim took longer than {LIMIT:?}");
        Err(StorageError::new(StorageErrorKind::Unavailable, context.storage.name(), text))
    })
}
