//! Storing messages directly in the inboxes of the bus's own groups, for in-process transports, which keep no messages.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::group_inbox::GroupInbox;
use crate::error::{StorageError, StorageErrorKind};
use crate::message::Message;
use crate::message::headers::{Headers, names};
use crate::publish::OwnGroup;
use crate::storage::{NewIncoming, Stored};
use crate::transport::Incoming;

impl GroupInbox {
    /// Whether stored messages are leased by this node at once and passed on in memory. With an in-process transport they
    /// are not: the claims take them in the order in which they were stored, when there is room. That way a slow group
    /// delays neither the sender nor other groups, memory stays bounded, and messages that are stored while the bus stops
    /// are not started.
    pub(super) fn holds_what_it_stores(&self) -> bool {
        !self.inbox.engine.broker.is_in_process()
    }

    async fn take_in_all(&self, messages: &[Arc<Message>]) -> Vec<Result<(), StorageError>> {
        if messages.is_empty() {
            return Vec::new();
        }
        self.group.metrics.received(messages.len());
        let rows = self.rows(messages.iter().map(|message| delivery(message)).collect()).await;
        match self.store(rows.clone()).await {
            Ok(stored) => {
                let mut results = Vec::with_capacity(rows.len());
                for (row, stored) in rows.into_iter().zip(stored) {
                    // Another message has this message id: store this one apart.
                    let result = if stored == Stored::Conflict {
                        self.take_in_one(row).await
                    } else {
                        self.taken_in(row, stored);
                        Ok(())
                    };
                    results.push(result);
                }
                results
            }
            Err(error) if error.kind() == StorageErrorKind::Refused => {
                // Stored one by one, so that an invalid message delays only itself.
                let mut results = Vec::with_capacity(rows.len());
                for row in rows {
                    results.push(self.take_in_one(row).await);
                }
                results
            }
            Err(error) => messages.iter().map(|_| Err(error.retold(error.kind()))).collect(),
        }
    }

    async fn take_in_one(&self, row: NewIncoming) -> Result<(), StorageError> {
        let (row, stored) = self.store_somehow(row, None).await?;
        for stored in stored {
            self.taken_in(row.clone(), stored);
        }
        Ok(())
    }

    /// Wakes the claims for a new row, and notifies an operator of a parked one.
    fn taken_in(&self, row: NewIncoming, stored: Stored) {
        // No row is leased by this node here, so that `hold` returns nothing to pass on.
        drop(self.hold(vec![row], &[stored]));
    }
}

impl OwnGroup for GroupInbox {
    fn name(&self) -> &Arc<str> {
        &self.group.name
    }

    /// Whether a handler of this group subscribes to the topic. Not for an existing queue: this bus does not know
    /// which topics its owner has bound to it.
    fn wants(&self, topic: &str) -> bool {
        !self.group.existing && self.group.member_for(topic).is_some()
    }

    /// Stores messages in the inbox. The result of a message is an error if the storage rejects it even when parked; all
    /// results are errors if the bus stops while the storage is unavailable.
    fn take_in<'a>(&'a self, messages: &'a [Arc<Message>]) -> BoxFuture<'a, Vec<Result<(), StorageError>>> {
        Box::pin(self.take_in_all(messages))
    }
}

/// Creates the delivery of a message as a broker would deliver it.
fn delivery(message: &Message) -> Incoming {
    let mut headers = Headers::new();
    for (name, value) in message.headers.iter().filter(|(name, _)| !names::stays(name)) {
        headers.set(name.to_owned(), value.map(str::to_owned));
    }
    Incoming::new(0, message.name().unwrap_or_default(), headers, message.body.clone())
}
