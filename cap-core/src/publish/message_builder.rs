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

/// A message about to be published: say more about it, then await it or give it to a transaction.
///
/// Awaiting stores the message in the outbox and gives back its id; from then on it reaches every subscribed group
/// at least once, whatever dies. It does not wait for the broker. Nothing happens until it is awaited.
///
/// # Cancel safety
///
/// Dropping the future half-way leaves open whether the message is stored.
#[must_use = "a message is published when this is awaited, or given to a transaction with .within(..)"]
pub struct Publish {
    draft: Result<Draft, PublishError>,
    target: Target,
}

/// Several messages to one topic, stored together in one round trip: all of them or none.
///
/// What is said about it is said about each message. Awaiting gives back their ids in order.
#[must_use = "messages are published when this is awaited, or given to a transaction with .within(..)"]
pub struct PublishAll {
    drafts: Result<Vec<Draft>, PublishError>,
    target: Target,
}

/// Where a message goes when it is awaited.
#[derive(Clone)]
pub(crate) enum Target {
    /// Into the outbox.
    Bus(Arc<Outbox>),
    /// Into the outbox together with the success of a message that is being handled.
    Delivery(Delivery),
}

/// The same words about one message and about several.
macro_rules! about {
    ($($field:ident)?) => {
        /// Asks for the handler's return value to be published to this topic.
        pub fn callback(self, topic: impl Into<String>) -> Self {
            let topic = topic.into();
            self.with(|draft| draft.callback = Some(topic.clone()))
        }

        /// Adds a header of your own. Those that the bus writes itself are refused when it is awaited;
        /// `cap-callback-name` is a [`callback`](Self::callback), and `cap-msg-id` the id of a single message.
        pub fn header(self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
            let (name, value) = (name.into(), value.into());
            self.with(|draft| draft.headers.insert(name.clone(), value.clone()))
        }

        /// Adds headers of your own, as [`header`](Self::header) does one.
        pub fn headers(self, headers: &Headers) -> Self {
            self.with(|draft| {
                for (name, value) in headers.iter() {
                    draft.headers.set(name.to_owned(), value.map(str::to_owned));
                }
            })
        }

        /// Publishes it this much later. The due time is stored with the message, so that no crash loses or hastens
        /// it; [`Cap::cancel`](crate::Cap::cancel) calls it off before.
        pub fn delay(self, delay: Duration) -> Self {
            self.with(|draft| (draft.delay, draft.broker_delay) = (Some(delay), None))
        }

        /// As [`delay`](Self::delay), but the broker keeps the message meanwhile, so that nothing is asked of the
        /// store when it is due. The message goes to the broker at once, and cannot be cancelled any more. It counts as
        /// routed as soon as the broker keeps it: that no queue wants it when the delay is over, nobody notices,
        /// whatever the option `unrouted` says. After an outage it may come later than it would have, by a
        /// 32nd of the delay or a second, whichever is longer. Refused when it is awaited if the transport cannot
        /// delay messages.
        pub fn delay_at_broker(self, delay: Duration) -> Self {
            self.with(|draft| (draft.delay, draft.broker_delay) = (None, Some(delay)))
        }
    };
}

impl Publish {
    pub(crate) fn new<T: Serialize + ?Sized>(target: Target, topic: String, payload: &T) -> Self {
        Self { draft: draft(topic, payload, &target), target }
    }

    about!();

    /// Gives the message an id of your own: a number or any unique text of up to 200 bytes. A second message of
    /// the same id is refused as long as the first is in the outbox.
    ///
    /// What a handler publishes through its [`Publisher`] is stored with the handler's success, when nobody can be told
    /// any more: there a second message of the same id is no error, and is not stored.
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

    /// Stores the message in a transaction, so that it leaves if and only if that commits. The commit does not
    /// wait for the broker.
    ///
    /// # Errors
    ///
    /// As awaiting it, and when the transaction is not one of the bus's own store.
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

    about!();

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
    /// As [`Publish::within`].
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

/// The payload type's name without its path; a reference to a payload is that payload.
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
            reason: "would give several messages one id",
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
    // The writer has it, and not this future: what is stored leaves also when nobody waits for it any more.
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
    // Given to the transaction first, as not certain: a caller may drop this future, and commit.
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

/// Stores messages in a transaction whose commit nobody tells of, and has it looked for.
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
    // Should this future be dropped from here on, or no answer come, the bus looks whether they are stored.
    pending.trying();
    point("within.before").await;
    let stored = transaction.store_watched(storage, &outbox.engine.storage.owner, rows).await;
    point("within.after").await;
    match stored {
        Ok((stored, Some(transaction))) => {
            // With a duplicate among them, too: the caller may commit the others all the same.
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

/// Waits until the bus takes messages.
async fn accepting(outbox: &Outbox, topic: &str) -> Result<(), PublishError> {
    let timeout = outbox.engine.options.publish_timeout;
    match tokio::time::timeout(timeout, outbox.engine.lifecycle.phase.started()).await {
        Ok(Phase::Running) => Ok(()),
        Ok(_) => Err(PublishError::ShutDown { topic: topic.to_owned() }),
        Err(_) => {
            let why = outbox.engine.storage.health.get().error.unwrap_or_default();
            let source = outbox.engine.storage.unavailable(format!("not reached since the start: {why}"));
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

/// Keeps the compiler's word that both are `Send`, so that they can be awaited in a spawned task.
const _: fn() = || {
    fn send<T: Send>(_: impl Fn(T)) {}
    send(|_: Publish| ());
    send(|_: PublishAll| ());
    let _ = |publish: Publish| -> Box<dyn Future<Output = _> + Send> { Box::new(publish.into_future()) };
};
