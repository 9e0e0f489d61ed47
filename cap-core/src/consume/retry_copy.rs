//! Retry copies, which the broker delivers after a delay: checks that they are ours, and claims the rows that they name.

use std::time::Duration;

use tokio::time::timeout;

use super::group_inbox::GroupInbox;
use super::incoming_hook::verified_user;
use super::received::Received;
use crate::error::{StorageError, TransportError};
use crate::message::headers::names;
use crate::runtime::batch_queue::BATCH_BYTES;
use crate::runtime::engine::Engine;
use crate::runtime::erased::DynConsumer;
use crate::runtime::repeated_events::Event;
use crate::storage::{Claimed, Lease, Side};
use crate::transport::{Incoming, Tag};

/// The timeout of a claim. After it, the row becomes due by itself.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether a delivery is a message or a retry copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// An ordinary message.
    Message,
    /// The retry copy that a node of this storage has sent after the attempt under this lease.
    Ours(Lease),
    /// A retry copy without a valid proof. It is dropped: it has no body, and no row depends on it.
    Forged,
}

impl GroupInbox {
    /// Determines whether a delivery is a message or a retry copy. Only the proof counts and not how the delivery arrived,
    /// because a sender can write any header, including `x-death`.
    pub(super) fn copy_of(&self, delivery: &Incoming) -> Copied {
        let headers = &delivery.headers;
        if !headers.contains(names::RETRY) {
            return Copied::Message;
        }
        let lease = headers.get(names::RETRY).and_then(lease);
        let Some(proof) = headers.get(names::RETRY_MAC) else {
            // Earlier versions sent copies without a proof, which were recognized by how they arrived. They are dropped;
            // their rows become due by themselves.
            let group = headers.get(names::GROUP) == Some(&*self.group.name);
            return match lease {
                Some(_) if group && delivery.delayed => self.forged(delivery, lease, "it carries no proof"),
                _ => Copied::Message,
            };
        };
        match lease {
            Some(lease) if self.inbox.engine.broker.retry_proofs.is_proof(proof, lease, &self.group.name) => {
                Copied::Ours(lease)
            }
            _ => self.forged(delivery, lease, "its proof is wrong"),
        }
    }

    fn forged(&self, delivery: &Incoming, lease: Option<Lease>, reason: &'static str) -> Copied {
        self.group.metrics.copy_refused();
        let (group, row) = (&*self.group.name, lease.map(|lease| lease.id));
        let user = verified_user(&delivery.properties);
        if self.inbox.engine.repeated.is_first(Event::CopyRejected, &self.group.name, reason) {
            tracing::warn!(
                group,
                row,
                user,
                reason,
                "retry copy dropped: it was not sent by a node of this storage"
            );
        } else {
            tracing::debug!(group, row, user, reason, "retry copy dropped");
        }
        Copied::Forged
    }

    /// Claims the rows that retry copies name, acknowledges the copies, and passes the messages on. Their bodies are read
    /// from the storage and their sizes are not known before that. So it claims one row first, then as many at a time as
    /// are likely to fit into a batch, and waits for room in memory before each claim.
    pub(super) async fn keep_retries(
        &self,
        consumer: &mut dyn DynConsumer,
        retries: &[(Lease, Tag)],
    ) -> Result<(), TransportError> {
        let (mut rest, mut largest) = (retries, BATCH_BYTES);
        while !rest.is_empty() {
            self.channels.budget.opens().await;
            let (part, later) = rest.split_at(rest.len().min(BATCH_BYTES / largest).max(1));
            let (leases, tags): (Vec<Lease>, Vec<Tag>) = part.iter().copied().unzip();
            let wanted = self.resume(&leases).await;
            largest = wanted.iter().map(|received| received.message().size()).max().unwrap_or(largest).max(1);
            self.acknowledge(consumer, &tags, wanted).await?;
            rest = later;
        }
        Ok(())
    }

    /// Claims the rows that retry copies name, and returns those that still wait for that attempt. If the storage is
    /// unavailable it does not retry, since the rows become due by themselves.
    async fn resume(&self, leases: &[Lease]) -> Vec<Received> {
        let claimed = match claim(&self.inbox.engine, leases).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.inbox.engine.storage.health.down(&error);
                return Vec::new();
            }
        };
        let wanted: Vec<Received> = claimed.into_iter().flatten().map(|row| self.take_up(row)).collect();
        tracing::debug!(
            group = &*self.group.name,
            came = leases.len(),
            wanted = wanted.len(),
            "received from a delay queue"
        );
        wanted
    }

    fn take_up(&self, claimed: Claimed) -> Received {
        let cancelled = self.inbox.engine.lifecycle.stop.handlers.child_token();
        self.inbox.engine.storage.leases.add(Side::Inbox, claimed.lease, Some(cancelled.clone()));
        Received::claimed(claimed, &self.channels.budget, cancelled)
    }
}

/// Parses the lease that a retry copy names: row id and epoch.
fn lease(text: &str) -> Option<Lease> {
    let (id, epoch) = text.split_once(':')?;
    Some(Lease { id: id.parse().ok()?, epoch: epoch.parse().ok()? })
}

pub(super) async fn claim(engine: &Engine, leases: &[Lease]) -> Result<Vec<Option<Claimed>>, StorageError> {
    let claimed = engine.storage.claim_waiting(&engine.storage.owner, leases);
    let late = || Err(engine.storage.unavailable(format!("a claim took longer than {CLAIM_TIMEOUT:?}")));
    timeout(CLAIM_TIMEOUT, claimed).await.unwrap_or_else(|_| late())
}
