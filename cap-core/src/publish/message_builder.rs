//! The builder behind `cap.publish(..)`.

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use cap_adapter::engine::{ShortTypeName, copy_trace};
use cap_adapter::{Delivery, Within};
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::oneshot;

use super::attempt_data::AttemptData;
use super::composer::{Composer, Draft};
use super::outbox::Outbox;
use super::payload::serialize;
use super::pending_commit::PendingCommit;
use crate::error::{PublishError, StorageError};
use crate::faults::point;
use crate::message::headers::names;
use crate::message::{Headers, MessageId};
use crate::runtime::health::Phase;
use crate::storage::{NewOutgoing, Stored};
use crate::writer::InsertItem;

/// Builds a message to be published. Set its options, then await it or store it in a transaction.
///
/// Awaiting stores the message in the outbox and returns its id. From then on it reaches every subscribed group at least
/// once, whatever crashes. It does not wait for the broker. Nothing happens until it is awaited.
///
/// # Cancel safety
///
/// Not cancel safe: if the future is dropped before it completes, the message may or may not be stored.
#[must_use = "a message is published when this is awaited, or given to a transaction with .within(..)"]
pub struct Publish {
    draft: Result<Draft, PublishError>,
    target: Target,
}

/// Builds several messages to one topic, which are stored together in one round trip: all of them or none.
///
/// Its options apply to each message. Awaiting returns their ids in order.
#[must_use = "messages are published when this is awaited, or given to a transaction with .within(..)"]
pub struct PublishAll {
    drafts: Result<Vec<Draft>, PublishError>,
    target: Target,
}

/// Where a message is stored when it is awaited.
#[derive(Clone)]
pub(crate) enum Target {
    /// In the outbox.
    Bus(Arc<Outbox>),
    /// In the outbox, together with the success of a message that is being handled.
    Delivery(Delivery),
}

/// The options that [`Publish`] and [`PublishAll`] have in common.
macro_rules! options {
    ($($field:ident)?) => {
        /// Requests a reply: the handler's return value is published to this topic.
        pub fn callback(self, topic: impl Into<String>) -> Self {
            let topic = topic.into();
            self.with(|draft| draft.callback = Some(topic.clone()))
        }

        /// Adds a custom header. Headers that the bus writes itself are an error when it is awaited, except for
        /// `cap-callback-name`, which is the same as [`callback`](Self::callback), and `cap-msg-id`, the id of a single
        /// message.
        pub fn header(self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
            let (name, value) = (name.into(), value.into());
            self.with(|draft| draft.headers.insert(name.clone(), value.clone()))
        }

        /// Adds custom headers; see [`header`](Self::header).
        pub fn headers(self, headers: &Headers) -> Self {
            self.with(|draft| {
                for (name, value) in headers.iter() {
                    draft.headers.set(name.to_owned(), value.map(str::to_owned));
                }
            })
        }

        /// Publishes it after this delay. The due time is stored with the message, so that a crash neither loses it nor
        /// sends it early. Until then it can be cancelled with [`Cap::cancel`](crate::Cap::cancel).
        pub fn delay(self, delay: Duration) -> Self {
            self.with(|draft| (draft.delay, draft.broker_delay) = (Some(delay), None))
        }

        /// Publishes it after this delay, which the broker keeps, so that the storage is not involved when it is due. The
        /// message is sent to the broker at once and cannot be cancelled. It counts as routed as soon as the broker has
        /// accepted it: if no queue is bound for it when the delay is over, it is lost unnoticed, whatever the option
        /// `unrouted` says. After an outage of the broker the delay may be longer by a 32nd of it or by a second, whichever
        /// is longer. It is an error when it is awaited if the transport cannot delay messages.
        pub fn delay_at_broker(self, delay: Duration) -> Self {
            self.with(|draft| (draft.delay, draft.broker_delay) = (None, Some(delay)))
        }
    };
}

impl Publish {
    pub(crate) fn new<T: Serialize + ?Sized>(target: Target, topic: String, payload: &T) -> Self {
        Self { draft: draft(topic, payload, &target), target }
    }

    options!();

    /// Sets the message id: a number or any other unique text of up to 200 bytes. A second message with the same id is an
    /// error as long as the first is in the outbox.
    ///
    /// Messages that a handler publishes through its [`Publisher`](crate::Publisher) are stored with the handler's success,
    /// when an error can no longer be returned: there, a second message with the same id is not stored.
    pub fn message_id(self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.with(|draft| draft.id = Some(id.clone()))
    }

    fn with(mut self, change: impl Fn(&mut Draft)) -> Self {
        if let Ok(draft) = &mut self.draft {
            change(draft);
        }
        self
    }

    /// Stores the message in a transaction, so that it is sent if and only if the transaction commits. The commit does not
    /// wait for the broker.
    ///
    /// # Errors
    ///
    /// The errors of awaiting it, and an error if the transaction is not one of the bus's own storage.
    pub async fn within<S: 'static, T: Within<S> + ?Sized>(
        self,
        transaction: &mut T,
    ) -> Result<MessageId, PublishError> {
        let mut ids = store_within(&self.target, vec![self.draft?], transaction).await?;
        ids.pop().ok_or(PublishError::ShutDown { topic: String::new() })
    }
}

impl PublishAll {
    pub(crate) fn new<T: Serialize>(
        target: Target,
        topic: &str,
        payloads: impl IntoIterator<Item = T>,
    ) -> Self {
        let drafts = payloads.into_iter().map(|payload| draft(topic.to_owned(), &payload, &target)).collect();
        Self { drafts, target }
    }

    options!();

    fn with(mut self, change: impl Fn(&mut Draft)) -> Self {
        if let Ok(drafts) = &mut self.drafts {
            drafts.iter_mut().for_each(change);
        }
        self
    }

    /// Stores the messages in a transaction; see [`Publish::within`].
    ///
    /// # Errors
    ///
    /// Those of [`Publish::within`].
    pub async fn within<S: 'static, T: Within<S> + ?Sized>(
        self,
        transaction: &mut T,
    ) -> Result<Vec<MessageId>, PublishError> {
        store_within(&self.target, self.drafts?, transaction).await
    }
}

impl IntoFuture for Publish {
    type Output = Result<MessageId, PublishError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut ids = store(&self.target, vec![self.draft?]).await?;
            ids.pop().ok_or(PublishError::ShutDown { topic: String::new() })
        })
    }
}

impl IntoFuture for PublishAll {
    type Output = Result<Vec<MessageId>, PublishError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { store(&self.target, self.drafts?).await })
    }
}

fn draft<T: Serialize + ?Sized>(topic: String, payload: &T, target: &Target) -> Result<Draft, PublishError> {
    let body = match serialize(payload) {
        Ok(body) => body,
        Err(error) => return Err(PublishError::Payload { topic, reason: error.to_string() }),
    };
    let type_name = short_name::<T>().into();
    let mut headers = Headers::new();
    if let Target::Delivery(delivery) = target {
        copy_trace(&delivery.message().headers, &mut headers);
    }
    Ok(Draft { topic, body, type_name, headers, ..Draft::default() })
}

/// The name of the payload's type without its path; for a reference, that of the referenced type.
fn short_name<T: ?Sized>() -> String {
    let mut name = type_name::<T>();
    while let Some(referent) = name.strip_prefix('&') {
        name = referent.strip_prefix("mut ").unwrap_or(referent);
    }
    ShortTypeName(name).to_string()
}

fn compose_all(composer: &Composer, drafts: Vec<Draft>) -> Result<Vec<NewOutgoing>, PublishError> {
    if let [first, _, ..] = &*drafts
        && first.headers.contains(names::MESSAGE_ID)
    {
        return Err(PublishError::Header {
            topic: first.topic.clone(),
            name: names::MESSAGE_ID.to_owned(),
            reason: "would give several messages the same id",
        });
    }
    drafts.into_iter().map(|draft| composer.compose(draft)).collect()
}

fn ids(rows: &[NewOutgoing]) -> Vec<MessageId> {
    rows.iter().map(|row| row.message.message_id().unwrap_or_else(|| MessageId::from(row.id))).collect()
}

async fn store(target: &Target, drafts: Vec<Draft>) -> Result<Vec<MessageId>, PublishError> {
    let Some(topic) = drafts.first().map(|draft| draft.topic.clone()) else { return Ok(Vec::new()) };
    match target {
        Target::Delivery(delivery) => {
            let Some(part) = AttemptData::of(delivery) else {
                return Err(PublishError::HandlerEnded { topic });
            };
            let rows = compose_all(part.composer(), drafts)?;
            let ids = ids(&rows);
            if part.add_publishes(rows) { Ok(ids) } else { Err(PublishError::HandlerEnded { topic }) }
        }
        Target::Bus(outbox) => {
            let timeout = outbox.engine.options.publish_timeout;
            let stored = tokio::time::timeout(timeout, store_in_outbox(outbox, &topic, drafts));
            stored.await.unwrap_or(Err(PublishError::TimedOut { topic, timeout }))
        }
    }
}

async fn store_in_outbox(
    outbox: &Arc<Outbox>,
    topic: &str,
    drafts: Vec<Draft>,
) -> Result<Vec<MessageId>, PublishError> {
    accepting(outbox, topic).await?;
    let mut rows = compose_all(&outbox.composer, drafts)?;
    let mut after_commit = PendingCommit::new(Arc::clone(outbox));
    for row in &mut rows {
        after_commit.admit(row);
    }
    let ids = ids(&rows);
    let (reply, stored) = oneshot::channel();
    let shut_down = || PublishError::ShutDown { topic: topic.to_owned() };
    // The insert writer owns `after_commit`, not this future: stored messages are dispatched even if the future is dropped.
    outbox
        .inserts
        .send(InsertItem::Outgoing { rows, after_write: Box::new(after_commit), reply })
        .await
        .map_err(|_| shut_down())?;
    let stored = stored.await.map_err(|_| shut_down())?;
    let stored = stored.map_err(|source| PublishError::Storage { topic: topic.to_owned(), source })?;
    refuse_duplicates(&stored, &ids)?;
    metrics::counter!("cap_published_total").increment(ids.len() as u64);
    for id in &ids {
        tracing::debug!(message_id = id.as_str(), topic, "stored in the outbox");
    }
    Ok(ids)
}

async fn store_within<S: 'static, T: Within<S> + ?Sized>(
    target: &Target,
    drafts: Vec<Draft>,
    transaction: &mut T,
) -> Result<Vec<MessageId>, PublishError> {
    let Some(topic) = drafts.first().map(|draft| draft.topic.clone()) else { return Ok(Vec::new()) };
    let Target::Bus(outbox) = target else {
        return Err(PublishError::WithinDelivery { topic });
    };
    accepting(outbox, &topic).await?;
    let Some(storage) = outbox.engine.storage.as_any().downcast_ref::<S>() else {
        return Err(PublishError::ForeignTransaction { bus: outbox.engine.storage.name() });
    };
    let mut rows = compose_all(&outbox.composer, drafts)?;
    let ids = ids(&rows);
    if T::WATCHED && transaction.after_commit().is_none() {
        let stored = store_watched(outbox, storage, &mut rows, transaction).await;
        let stored = stored.map_err(|source| PublishError::Storage { topic, source })?;
        refuse_duplicates(&stored, &ids)?;
        metrics::counter!("cap_published_total").increment(ids.len() as u64);
        return Ok(ids);
    }
    // Given to the transaction before the rows are stored, as uncertain: the caller may drop this future and then commit.
    let mut before = None;
    if let Some(after_commit) = transaction.after_commit().and_then(PendingCommit::behind) {
        let mut pending = PendingCommit::new(Arc::clone(outbox));
        for row in &mut rows {
            pending.admit_open(row);
        }
        before = Some(after_commit.absorb(pending));
    }
    point("within.before").await;
    let stored = transaction.store(storage, &outbox.engine.storage.owner, &rows).await;
    point("within.after").await;
    let stored = match stored {
        Ok(stored) => refuse_duplicates(&stored, &ids),
        Err(source) => Err(PublishError::Storage { topic, source }),
    };
    if let (Some(after_commit), Some(before)) =
        (transaction.after_commit().and_then(PendingCommit::behind), before)
    {
        match &stored {
            Ok(()) => after_commit.confirm(before),
            Err(_) => after_commit.retract(before),
        }
    }
    stored?;
    metrics::counter!("cap_published_total").increment(ids.len() as u64);
    Ok(ids)
}

/// Stores messages in a transaction whose commit is not reported, and watches for it.
async fn store_watched<S: 'static, T: Within<S> + ?Sized>(
    outbox: &Arc<Outbox>,
    storage: &S,
    rows: &mut [NewOutgoing],
    transaction: &mut T,
) -> Result<Vec<Stored>, StorageError> {
    let mut pending = PendingCommit::of_transaction(Arc::clone(outbox));
    for row in &mut *rows {
        pending.admit_open(row);
    }
    // If this future is dropped from here on, or the answer is lost, the bus checks whether the rows are stored.
    pending.trying();
    point("within.before").await;
    let stored = transaction.store_watched(storage, &outbox.engine.storage.owner, rows).await;
    point("within.after").await;
    match stored {
        Ok((stored, Some(transaction))) => {
            // Watched even if one of them is a duplicate: the caller may commit the others nevertheless.
            outbox.open_commits.watch(transaction, pending.into_uncommitted());
            Ok(stored)
        }
        Ok((stored, None)) => Ok(stored),
        Err(error) => {
            if error.is_refused() {
                pending.not_committed();
            }
            Err(error)
        }
    }
}

/// Waits until the bus accepts messages.
async fn accepting(outbox: &Outbox, topic: &str) -> Result<(), PublishError> {
    let timeout = outbox.engine.options.publish_timeout;
    match tokio::time::timeout(timeout, outbox.engine.lifecycle.phase.started()).await {
        Ok(Phase::Running) => Ok(()),
        Ok(_) => Err(PublishError::ShutDown { topic: topic.to_owned() }),
        Err(_) => {
            let why = outbox.engine.storage.health.get().error.unwrap_or_default();
            let source = outbox.engine.storage.unavailable(format!("unreachable since the start: {why}"));
            Err(PublishError::Storage { topic: topic.to_owned(), source })
        }
    }
}

fn refuse_duplicates(stored: &[Stored], ids: &[MessageId]) -> Result<(), PublishError> {
    match stored.iter().position(|stored| *stored == Stored::Duplicate) {
        Some(index) => Err(PublishError::DuplicateId { id: ids[index].clone() }),
        None => Ok(()),
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish").field("draft", &self.draft).finish_non_exhaustive()
    }
}

impl fmt::Debug for PublishAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishAll").field("drafts", &self.drafts).finish_non_exhaustive()
    }
}

/// Checks at compile time that both are `Send`, so that they can be awaited in a spawned task.
const _: fn() = || {
    fn send<T: Send>(_: impl Fn(T)) {}
    send(|_: Publish| ());
    send(|_: PublishAll| ());
    let _ = |publish: Publish| -> Box<dyn Future<Output = _> + Send> { Box::new(publish.into_future()) };
};
