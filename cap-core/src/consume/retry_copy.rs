//! Copies that come back from a broker's delay: which of them are ours, and the messages that they stand for.

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

/// Neither store nor broker is waited for any longer: the row becomes due by itself.
const LIMIT: Duration = Duration::from_secs(30);

/// What a delivery is with regard to retries that the broker keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// A message, as somebody has sent it.
    Message,
    /// The copy that a node of this storage has sent after the attempt under this lease.
    Ours(Lease),
    /// A copy that is not proved to be ours. It is dropped: it has no body, and no row depends on it.
    Forged,
}

impl GroupInbox {
    /// What a delivery is with regard to retries that the broker keeps. How it came does not count: a sender can write any
    /// header, `x-death` too.
    pub(super) fn copy_of(&self, delivery: &Incoming) -> Copied {
        let headers = &delivery.headers;
        if !headers.contains(names::RETRY) {
            return Copied::Message;
        }
        let lease = headers.get(names::RETRY).and_then(lease);
        let Some(proof) = headers.get(names::RETRY_MAC) else {
            // Before there were proofs, a copy was known by its way. Its row becomes due by itself.
            let group = headers.get(names::GROUP) == Some(&*self.group.name);
            return match lease {
                Some(_) if group && delivery.delayed => self.refused(delivery, lease, "it carries no proof"),
                _ => Copied::Message,
            };
        };
        match lease {
            Some(lease) if self.inbox.engine.broker.retry_proofs.is_proof(proof, lease, &self.group.name) => {
                Copied::Ours(lease)
            }
            _ => self.refused(delivery, lease, "its proof is wrong"),
        }
    }

    fn refused(&self, delivery: &Incoming, lease: Option<Lease>, reason: &'static str) -> Copied {
        metrics::counter!("cap_retry_copies_refused_total").increment(1);
        let (group, row) = (&*self.group.name, lease.map(|lease| lease.id));
        let user = verified_user(&delivery.properties);
        if self.inbox.engine.repeated.is_first(Event::CopyRefused, &self.group.name, reason) {
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
        Copied::Forged
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

    /// Claims the rows of messages that came back from a delay, and gives back those that are still wanted. A store
    /// that cannot be asked is not waited for: the rows become due by themselves.
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

/// The row and the claim that a copy names.
fn lease(text: &str) -> Option<Lease> {
    let (id, epoch) = text.split_once(':')?;
    Some(Lease { id: id.parse().ok()?, epoch: epoch.parse().ok()? })
}

pub(super) async fn claim(engine: &Engine, leases: &[Lease]) -> Result<Vec<Option<Claimed>>, StorageError> {
    let claimed = engine.storage.claim_waiting(&engine.storage.owner, leases);
    let late = || Err(engine.storage.unavailable(format!("a claim took longer than {LIMIT:?}")));
    timeout(LIMIT, claimed).await.unwrap_or_else(|_| late())
}
