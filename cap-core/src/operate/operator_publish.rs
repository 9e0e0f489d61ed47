//! Publishing from the storage alone: a node that shares the storage sends the message.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::operated_storage::OperatedStorage;
use crate::error::PublishError;
use crate::memory::MemoryTransport;
use crate::message::{IdGenerator, MessageId};
use crate::publish::composer::{Composer, Draft};
use crate::runtime::options::CapOptions;
use crate::storage::{NewOutgoing, NodeRequest, Owner, Side, Stored, WriteBatch};

/// How long the worker id stays reserved if this process dies before it releases it.
const WORKER_ID_LEASE: Duration = Duration::from_mins(1);

/// A message that an operator publishes; see [`Operator::publish`](crate::Operator::publish).
///
/// ```
/// use cap_core::Operator;
/// use cap_core::memory::MemoryStorage;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let operator = Operator::open(MemoryStorage::new()).await?;
/// let id = operator.publish("order.placed", r#"{"order":7}"#).header("tenant", "acme").store().await?;
/// assert_eq!(operator.messages().published().find(id.as_str()).await?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "a message is published when .store() is awaited"]
pub struct OperatorPublish {
    storage: OperatedStorage,
    draft: Draft,
}

impl OperatorPublish {
    pub(super) fn new(storage: OperatedStorage, topic: String, body: Bytes) -> Self {
        let draft =
            Draft { topic, body, type_name: "Object".into(), verbatim_topic: true, ..Draft::default() };
        Self { storage, draft }
    }

    /// Requests a reply: the handler's return value is published to this topic.
    pub fn callback(mut self, topic: impl Into<String>) -> Self {
        self.draft.callback = Some(topic.into());
        self
    }

    /// Adds a custom header; see [`Publish::header`](crate::Publish::header).
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.draft.headers.insert(name, value);
        self
    }

    /// Publishes it after this delay.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.draft.delay = Some(delay);
        self
    }

    /// Sets the message id; see [`Publish::message_id`](crate::Publish::message_id).
    pub fn message_id(mut self, id: impl Into<String>) -> Self {
        self.draft.id = Some(id.into());
        self
    }

    /// Sets the header `cap-msg-type`. Default: `Object`.
    pub fn type_name(mut self, name: impl Into<String>) -> Self {
        self.draft.type_name = Cow::Owned(name.into());
        self
    }

    /// Checks the message as [`store`](Self::store) does, and stores nothing.
    ///
    /// # Errors
    ///
    /// An invalid topic, header or id, or a message that is too large.
    pub fn check(&self) -> Result<(), PublishError> {
        self.compose(0).map(drop)
    }

    /// Stores the message in the outbox and returns its id. It does not wait until a node has sent it.
    ///
    /// A row id needs a worker id: one is claimed from the storage and released at the end. If it cannot be released, it is
    /// free again after a minute. Not cancel safe: if the future is dropped, the message may or may not be stored.
    ///
    /// # Errors
    ///
    /// Those of [`check`](Self::check), a message id that is in the outbox already, and those of the storage.
    pub async fn store(self) -> Result<MessageId, PublishError> {
        self.check()?;
        let topic = self.draft.topic.clone();
        let failed = |source| PublishError::Storage { topic: topic.clone(), source };
        let options = CapOptions::default();
        let node: Arc<str> = format!("operator-{}", options.node_name).into();
        let request = NodeRequest {
            node: Arc::clone(&node),
            worker: None,
            lease: WORKER_ID_LEASE,
            succeeded_expire_after: options.succeeded_expire_after,
        };
        let worker = self.storage.join(&request).await.map_err(failed)?;
        let stored = self.store_as(&node, worker, &options).await;
        if let Err(error) = self.storage.leave(&node, worker).await {
            tracing::debug!(%error, worker, "could not release the worker id of an operator; it expires by itself");
        }
        stored
    }

    async fn store_as(
        &self,
        node: &Arc<str>,
        worker: u16,
        options: &CapOptions,
    ) -> Result<MessageId, PublishError> {
        let new = self.compose(worker)?;
        let id = new.message.message_id().unwrap_or_else(|| MessageId::from(new.id));
        let owner = Owner {
            node: Arc::clone(node),
            version: Arc::clone(&self.storage.version),
            lease: options.lease,
        };
        let batch = WriteBatch { outgoing: vec![new], ..WriteBatch::default() };
        let report = self
            .storage
            .write(&owner, &batch)
            .await
            .map_err(|source| PublishError::Storage { topic: self.draft.topic.clone(), source })?;
        if report.outgoing.contains(&Stored::Duplicate) {
            return Err(PublishError::DuplicateId { id });
        }
        self.storage.wake.wake(Side::Outbox);
        Ok(id)
    }

    fn compose(&self, worker: u16) -> Result<NewOutgoing, PublishError> {
        let composer = Composer {
            options: Arc::new(CapOptions::default()),
            ids: Arc::new(IdGenerator::new(worker)),
            can_delay: false,
            // The broker is known to the nodes only: what it would reject is parked by the node that sends it.
            transport: Arc::new(MemoryTransport::new()),
        };
        composer.compose(self.draft.clone())
    }
}

impl fmt::Debug for OperatorPublish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorPublish").field("topic", &self.draft.topic).finish_non_exhaustive()
    }
}
