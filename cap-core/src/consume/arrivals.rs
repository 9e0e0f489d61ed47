//! What a bus on a transport of its own process stores in the inboxes of its own groups: such a transport keeps nothing.

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
    /// Whether what this bus stores is handed on in memory. Otherwise the claims take it, in the order in which it was
    /// stored, when there is room for it: then a group that falls behind holds up neither the sender nor other groups,
    /// memory stays bounded, and what is stored while the bus stops is not started.
    pub(super) fn holds_what_it_stores(&self) -> bool {
        !self.inbox.engine.broker.is_in_process()
    }

    async fn take_in_all(&self, messages: &[Arc<Message>]) -> Vec<Result<(), StorageError>> {
        if messages.is_empty() {
            return Vec::new();
        }
        metrics::counter!("cap_received_total").increment(messages.len() as u64);
        let rows = self.rows(messages.iter().map(|message| delivery(message)).collect()).await;
        match self.store(rows.clone()).await {
            Ok(stored) => {
                let mut answers = Vec::with_capacity(rows.len());
                for (row, stored) in rows.into_iter().zip(stored) {
                    // Another message has its id: it is stored apart from that.
                    let answer = if stored == Stored::Conflict {
                        self.take_in_one(row).await
                    } else {
                        self.taken_in(row, stored);
                        Ok(())
                    };
                    answers.push(answer);
                }
                answers
            }
            Err(error) if error.kind() == StorageErrorKind::Refused => {
                // One bad message holds up none but itself.
                let mut answers = Vec::with_capacity(rows.len());
                for row in rows {
                    answers.push(self.take_in_one(row).await);
                }
                answers
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

    /// Wakes the claims for a row that is new, and has an operator notified of one that is parked.
    fn taken_in(&self, row: NewIncoming, stored: Stored) {
        // Nothing of it is held, so that there is nothing to hand on.
        drop(self.hold(vec![row], &[stored]));
    }
}

impl OwnGroup for GroupInbox {
    fn name(&self) -> &Arc<str> {
        &self.group.name
    }

    /// A queue that is somebody else's holds what its owner has bound to it, which this bus does not know.
    fn wants(&self, topic: &str) -> bool {
        !self.group.existing && self.group.member_for(topic).is_some()
    }

    /// An error is for a message that the storage refuses, even parked; for all of them when the bus stops with a storage
    /// that is not there.
    fn take_in<'a>(&'a self, messages: &'a [Arc<Message>]) -> BoxFuture<'a, Vec<Result<(), StorageError>>> {
        Box::pin(self.take_in_all(messages))
    }
}

/// A message as a broker would deliver it.
fn delivery(message: &Message) -> Incoming {
    let mut headers = Headers::new();
    for (name, value) in message.headers.iter().filter(|(name, _)| !names::stays(name)) {
        headers.set(name.to_owned(), value.map(str::to_owned));
    }
    Incoming {
        tag: 0,
        routing_key: message.name().unwrap_or_default().to_owned(),
        headers,
        properties: Headers::new(),
        body: message.body.clone(),
        redelivered: false,
        delayed: false,
    }
}
