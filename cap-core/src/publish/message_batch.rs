//! Messages to any topics that are stored together.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use cap_adapter::Within;
use futures_util::future::BoxFuture;

use super::composer::Draft;
use super::message_builder::Publish;
use super::outbox::Outbox;
use super::storing::{Target, store, store_within};
use crate::error::PublishError;
use crate::message::MessageId;

/// Collects messages to any topics, each with its own options, which are then stored together in one statement: all of them
/// or none. Made by [`Cap::batch`](crate::Cap::batch).
///
/// In a transaction each `within` of a single message is a round trip; a batch takes one for all of its messages. Nothing is
/// stored before the batch is awaited or given to a transaction, so that a message that was added is not undone with a
/// savepoint that is rolled back before that, and a message id that is in use is reported only then.
///
/// ```
/// # async fn example(cap: cap_core::Cap) -> Result<(), cap_core::PublishError> {
/// let mut batch = cap.batch();
/// batch.add(cap.publish("order.placed", &7));
/// batch.add(cap.publish("invoice.wanted", &7).header("tenant", "acme"));
/// let ids = batch.await?;
/// assert_eq!(ids.len(), 2);
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// Not cancel safe: if the future is dropped before it completes, the messages may or may not be stored.
#[must_use = "messages are published when the batch is awaited, or given to a transaction with .within(..)"]
pub struct MessageBatch {
    drafts: Result<Vec<Draft>, PublishError>,
    outbox: Arc<Outbox>,
}

impl MessageBatch {
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        Self { drafts: Ok(Vec::new()), outbox }
    }

    /// Adds a message of the same bus, with its options. A message that cannot be published, or is one of another bus or of a
    /// handler's [`Publisher`](crate::Publisher), makes the whole batch fail when it is stored.
    pub fn add(&mut self, message: Publish) -> &mut Self {
        let (draft, target) = message.into_parts();
        let draft = draft.and_then(|draft| match target {
            Target::Bus(outbox) if Arc::ptr_eq(&outbox, &self.outbox) => Ok(draft),
            _ => Err(PublishError::OtherBus { topic: draft.topic }),
        });
        match (&mut self.drafts, draft) {
            (Ok(drafts), Ok(draft)) => drafts.push(draft),
            // The first error is the one that is reported.
            (Err(_), _) => {}
            (drafts, Err(error)) => *drafts = Err(error),
        }
        self
    }

    /// The number of messages, zero once one of them could not be added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.drafts.as_ref().map_or(0, Vec::len)
    }

    /// Whether there is nothing to store and no error to report.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.drafts.as_ref().is_ok_and(Vec::is_empty)
    }

    /// Stores the messages in a transaction, in one statement, and returns their ids in order; see [`Publish::within`].
    ///
    /// # Errors
    ///
    /// Those of [`Publish::within`], for the first invalid message. Then none is stored.
    pub async fn within<S: 'static, T: Within<S> + ?Sized>(
        self,
        transaction: &mut T,
    ) -> Result<Vec<MessageId>, PublishError> {
        store_within(&Target::Bus(self.outbox), self.drafts?, transaction).await
    }
}

impl Extend<Publish> for MessageBatch {
    fn extend<I: IntoIterator<Item = Publish>>(&mut self, messages: I) {
        for message in messages {
            self.add(message);
        }
    }
}

impl IntoFuture for MessageBatch {
    type Output = Result<Vec<MessageId>, PublishError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { store(&Target::Bus(self.outbox), self.drafts?).await })
    }
}

impl fmt::Debug for MessageBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageBatch").field("drafts", &self.drafts).finish_non_exhaustive()
    }
}
