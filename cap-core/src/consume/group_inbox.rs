//! The inbox of one group: inserting its rows, and what happens to them right after that.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::inbox::Inbox;
use super::received::Received;
use crate::error::StorageError;
use crate::handlers::Group;
use crate::runtime::batch_queue::{BATCH_BYTES, split};
use crate::runtime::byte_budget::ByteBudget;
use crate::runtime::notifier::FailedMessage;
use crate::runtime::repeated_events::Event;
use crate::storage::{Entry, Lease, NewIncoming, Reason, Side, Stored};
use crate::writer::InsertItem;

/// A group of this bus, with its channels to the insert writer and to its executor.
pub(crate) struct GroupInbox {
    pub(super) inbox: Arc<Inbox>,
    pub(super) group: Arc<Group>,
    pub(super) channels: GroupChannels,
}

/// The channels of a group, and its memory budget.
#[derive(Debug, Clone)]
pub(crate) struct GroupChannels {
    /// To the group's insert writer.
    pub(crate) store: mpsc::Sender<InsertItem>,
    /// To the task that runs its handlers.
    pub(crate) intake: mpsc::Sender<Received>,
    pub(crate) budget: Arc<ByteBudget>,
}

impl GroupInbox {
    pub(crate) fn new(inbox: Arc<Inbox>, group: Arc<Group>, channels: GroupChannels) -> Self {
        Self { inbox, group, channels }
    }

    /// Inserts rows, in parts that each fit into a batch. After an error some of them may be stored; they are duplicates
    /// when they are stored again.
    pub(super) async fn store(&self, rows: Vec<NewIncoming>) -> Result<Vec<Stored>, StorageError> {
        let mut parts = split(rows, BATCH_BYTES, |row| row.message.size()).into_iter();
        let Some(first) = parts.next() else { return Ok(Vec::new()) };
        let mut stored = self.store_part(first).await?;
        for part in parts {
            stored.extend(self.store_part(part).await?);
        }
        Ok(stored)
    }

    async fn store_part(&self, rows: Vec<NewIncoming>) -> Result<Vec<Stored>, StorageError> {
        let (reply, stored) = oneshot::channel();
        if self.channels.store.send(InsertItem::Incoming(rows, reply)).await.is_ok()
            && let Ok(stored) = stored.await
        {
            return stored;
        }
        // The insert writer has ended, so the bus is stopping. Waiting for ever leaves the deliveries unacknowledged, and
        // the broker keeps them; the caller is dropped.
        std::future::pending().await
    }

    /// Records the leases of rows that this node has just inserted, notifies an operator of parked ones, and returns the
    /// messages to handle. A lease is recorded now, so that it is renewed while its message waits for room.
    pub(super) fn hold(&self, rows: Vec<NewIncoming>, stored: &[Stored]) -> Vec<Received> {
        rows.into_iter().zip(stored).filter_map(|(row, stored)| self.hold_one(row, *stored)).collect()
    }

    fn hold_one(&self, row: NewIncoming, stored: Stored) -> Option<Received> {
        let NewIncoming { id, group, message, entry, .. } = row;
        let (message_id, topic) = (message.id(), message.name());
        if stored != Stored::New {
            self.group.metrics.duplicate();
            tracing::debug!(
                message_id,
                topic,
                group = &*group,
                "duplicate received; it is not handled again"
            );
            return None;
        }
        let lease = Lease { id, epoch: 1 };
        match entry {
            Entry::Scheduled { held } => {
                tracing::debug!(message_id, topic, group = &*group, row = id, "stored in the inbox");
                if !held {
                    self.inbox.engine.storage.wake(Side::Inbox);
                    return None;
                }
                let cancelled = self.inbox.engine.lifecycle.stop.handlers.child_token();
                let is_ours =
                    self.inbox.engine.storage.leases.add(Side::Inbox, lease, Some(cancelled.clone()));
                is_ours.then(|| Received::stored(lease, message, &self.channels.budget, cancelled))
            }
            Entry::Parked { reason, error, notify, .. } => {
                if self.inbox.engine.repeated.is_first(Event::Parked, &group, reason.as_str()) {
                    tracing::error!(message_id, topic, group = &*group, row = id, error, "message parked");
                } else {
                    tracing::debug!(message_id, topic, group = &*group, row = id, error, "message parked");
                }
                self.group.metrics_for(&message).parked.increment(1);
                if reason == Reason::IdConflict {
                    self.group.metrics.id_conflict();
                }
                if notify {
                    let (side, attempts) = (Side::Inbox, 0);
                    let failed = FailedMessage { side, lease, message, group, reason, error, attempts };
                    self.inbox.engine.notify(failed);
                }
                None
            }
        }
    }
}
