//! The builder behind `cap.publish(..)`.

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::time::Duration;

use bytes::Bytes;
use cap_adapter::Within;
use cap_adapter::engine::{ShortTypeName, copy_trace};
use futures_util::future::BoxFuture;
use serde::Serialize;

use super::composer::Draft;
use super::payload::serialize;
use super::storing::{Target, store, store_within};
use crate::error::PublishError;
use crate::message::headers::names;
use crate::message::{Headers, MessageId};

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

        /// Sets the header `cap-msg-type`: a name of the payload's type for whoever reads the message, such as the full name
        /// of a .NET type. cap and .NET CAP do not use it to decode a body. Default: the name of the payload's Rust type
        /// without its path; `Object` for bytes.
        pub fn type_name(self, name: impl Into<Cow<'static, str>>) -> Self {
            let name = name.into();
            self.with(|draft| draft.type_name = name.clone())
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

    pub(crate) fn of_bytes(target: Target, topic: String, body: Bytes) -> Self {
        let type_name = "Object".into();
        Self {
            draft: Ok(Draft { topic, body, type_name, headers: first_headers(&target), ..Draft::default() }),
            target,
        }
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

    /// The parts, for a batch that collects messages.
    pub(super) fn into_parts(self) -> (Result<Draft, PublishError>, Target) {
        (self.draft, self.target)
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
        store_within(&self.target, with_own_ids(self.drafts?)?, transaction).await
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
        Box::pin(async move { store(&self.target, with_own_ids(self.drafts?)?).await })
    }
}

fn draft<T: Serialize + ?Sized>(topic: String, payload: &T, target: &Target) -> Result<Draft, PublishError> {
    let body = match serialize(payload) {
        Ok(body) => body,
        Err(error) => return Err(PublishError::Payload { topic, reason: error.to_string() }),
    };
    let type_name = short_name::<T>().into();
    Ok(Draft { topic, body, type_name, headers: first_headers(target), ..Draft::default() })
}

/// What a message starts with: the trace context of the message that is being handled, if it is published by a handler.
fn first_headers(target: &Target) -> Headers {
    let mut headers = Headers::new();
    if let Target::Delivery(delivery) = target {
        copy_trace(&delivery.message().headers, &mut headers);
    }
    headers
}

/// Refuses an id as a header of several messages.
fn with_own_ids(drafts: Vec<Draft>) -> Result<Vec<Draft>, PublishError> {
    if let [first, _, ..] = &*drafts
        && first.headers.contains(names::MESSAGE_ID)
    {
        return Err(PublishError::Header {
            topic: first.topic.clone(),
            name: names::MESSAGE_ID.to_owned(),
            reason: "would give several messages the same id",
        });
    }
    Ok(drafts)
}

/// The name of the payload's type without its path; for a reference, that of the referenced type.
fn short_name<T: ?Sized>() -> String {
    let mut name = type_name::<T>();
    while let Some(referent) = name.strip_prefix('&') {
        name = referent.strip_prefix("mut ").unwrap_or(referent);
    }
    ShortTypeName(name).to_string()
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
