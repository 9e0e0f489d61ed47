//! Turns a delivery into an inbox row: a row for its handler, or a parked row with the reason.

use std::sync::Arc;

use bytes::Bytes;

use super::group_inbox::GroupInbox;
use super::incoming_hook::{remember, verified_user};
use crate::error::{StorageError, error_chain, error_text};
use crate::handlers::Member;
use crate::message::headers::names;
use crate::message::{Headers, Message, MessageId, validate_topic};
use crate::runtime::options::CapOptions;
use crate::storage::{Digest, Entry, Identity, NewIncoming, Reason};
use crate::transport::Incoming;
use cap_adapter::engine::OWN_ID_PREFIX;

/// How many bytes are kept of a body that the storage does not accept as a whole.
const KEPT_BODY_BYTES: usize = 64 * 1024;

impl GroupInbox {
    /// Turns a delivery into a row, or into a parked row with the reason.
    fn row(&self, mut delivery: Incoming) -> NewIncoming {
        // Stripped before the hook sees them as well: reserved headers written by a sender prove nothing.
        strip_reserved(&mut delivery.headers);
        let hooked = self.inbox.hook.apply(&mut delivery);
        let mut headers = delivery.headers;
        strip_reserved(&mut headers);
        headers.insert(names::GROUP, &*self.group.name);
        if let Some(user) = verified_user(&delivery.properties) {
            headers.insert(names::VERIFIED_USER, user);
        }
        let named_by_hook = *hooked.as_ref().unwrap_or(&false);
        let mut problem = self.problem(&mut headers, &delivery.routing_key, named_by_hook);
        if let Err(panic) = hooked {
            problem = Some((Reason::MissingHeaders, panic));
        }
        if matches!(problem, Some((Reason::MissingHeaders, _))) {
            remember(&mut headers, &delivery.routing_key, &delivery.properties);
        }
        let entry = match problem {
            None => Entry::Scheduled { held: self.holds_what_it_stores() },
            Some((reason, error)) => self.parked(reason, error),
        };
        NewIncoming {
            id: self.inbox.engine.ids.next_id(),
            group: Arc::clone(&self.group.name),
            message: Arc::new(Message::new(headers, delivery.body)),
            entry,
            identity: Identity::default(),
        }
    }

    /// Turns deliveries into rows, each with the digest by which duplicates are recognized.
    pub(super) async fn rows(&self, deliveries: Vec<Incoming>) -> Vec<NewIncoming> {
        let mut rows = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            // The user comes from the broker's property and never from the hook.
            let user = self.inbox.engine.options.user_in_identity;
            let user = user.then(|| delivery.properties.get(USER_ID).map(str::to_owned)).flatten();
            let mut row = self.row(delivery);
            row.identity = Identity::new(digest(&row.message, user).await);
            rows.push(row);
        }
        rows
    }

    /// Creates a parked row, with an identity of its own, for a message whose message id belongs to another message.
    pub(super) fn apart(&self, row: &NewIncoming) -> NewIncoming {
        let mut error = format!(
            "the message id {:?} was received before with another topic or body; that message keeps the id, and this one \
             is parked until an operator re-runs or deletes it",
            row.message.id().unwrap_or_default()
        );
        if let Entry::Parked { error: own, .. } = &row.entry {
            error = format!("{error}; also: {own}");
        }
        NewIncoming {
            id: self.inbox.engine.ids.next_id(),
            group: Arc::clone(&row.group),
            message: Arc::clone(&row.message),
            entry: self.parked(Reason::IdConflict, error),
            identity: Identity { apart: true, ..row.identity },
        }
    }

    fn parked(&self, reason: Reason, error: String) -> Entry {
        let (keep, notify) =
            (self.inbox.engine.options.failed_expire_after, self.inbox.engine.notifier.has_callback());
        Entry::Parked { reason, error: error_text(error), keep, notify }
    }

    /// The same row with another row id, in case the storage rejects this one because it is taken.
    pub(super) fn renumbered(&self, row: NewIncoming) -> NewIncoming {
        NewIncoming { id: self.inbox.engine.ids.next_id(), ..row }
    }

    /// Creates a parked row for a message that the storage rejects, with the storage's error. The headers are reduced to
    /// plain text; the body is unchanged.
    pub(super) fn parked_as_rejected(&self, row: &NewIncoming, rejection: &StorageError) -> NewIncoming {
        let error = format!("the storage rejected the message: {}", error_chain(rejection));
        self.parked_with(row, row.message.body.clone(), error)
    }

    /// Creates a parked row as [`parked_as_rejected`](Self::parked_as_rejected) does, but with only the first 64 KiB of a
    /// body that the storage does not accept as a whole.
    pub(super) fn parked_in_part(&self, row: &NewIncoming, rejection: &StorageError) -> NewIncoming {
        let body = &row.message.body;
        let error = format!(
            "the storage does not accept a message of this size, even parked; of the {} bytes of its body only the first \
             {} are kept: {}",
            body.len(),
            body.len().min(KEPT_BODY_BYTES),
            error_chain(rejection)
        );
        // Copied, because a slice would keep the whole body in memory.
        let kept = Bytes::copy_from_slice(&body[..body.len().min(KEPT_BODY_BYTES)]);
        self.parked_with(row, kept, error)
    }

    fn parked_with(&self, row: &NewIncoming, body: Bytes, error: String) -> NewIncoming {
        let mut headers = Headers::new();
        for (name, value) in row.message.headers.iter() {
            headers.set(plain(name), value.map(plain));
        }
        NewIncoming {
            id: self.inbox.engine.ids.next_id(),
            group: Arc::clone(&row.group),
            message: Arc::new(Message::new(headers, body)),
            entry: self.parked(Reason::Corrupt, error),
            identity: row.identity,
        }
    }

    /// Says why no handler of this group can handle a message with these headers, if that is so. Values that do not fit a
    /// storage's column are moved to a header of another name, so that the row can be stored and found.
    fn problem(
        &self,
        headers: &mut Headers,
        routing_key: &str,
        named_by_hook: bool,
    ) -> Option<(Reason, String)> {
        let (id, name) = (names::MESSAGE_ID, names::MESSAGE_NAME);
        if let Some(text) = headers.get(id)
            && (text.len() > MessageId::MAX_LENGTH || text.contains('\0'))
        {
            move_aside(headers, id);
            return Some((
                Reason::MissingHeaders,
                format!("the header {id} is longer than 200 bytes or has a NUL"),
            ));
        }
        if headers.get(id).is_some_and(|text| text.starts_with(OWN_ID_PREFIX)) {
            move_aside(headers, id);
            let error = format!("the header {id} begins with {OWN_ID_PREFIX}, which only cap itself writes");
            return Some((Reason::MissingHeaders, error));
        }
        if let Some(text) = headers.get(name)
            && let Err(error) = validate_topic(text)
        {
            let error = format!("the header {name} is not a valid topic: {error}");
            move_aside(headers, name);
            return Some((Reason::MissingHeaders, error));
        }
        let missing: Vec<&str> =
            [id, name].into_iter().filter(|name| headers.get(name).is_none_or(str::is_empty)).collect();
        if !missing.is_empty() {
            let error = format!(
                "the delivery has no {}; its routing key is {routing_key:?}",
                missing.join(" and no ")
            );
            return Some((Reason::MissingHeaders, error));
        }
        let topic = headers.get(name).unwrap_or_default();
        if !named_by_hook && self.is_misnamed(topic, routing_key) {
            let error = format!(
                "the header {name} says {topic:?}, but the message was sent with the routing key {routing_key:?}; \
                 if the broker restricts who may write to which topic, it has checked only the routing key"
            );
            return Some((Reason::NameMismatch, error));
        }
        let Some(member) = self.group.member_for(topic) else {
            let error =
                format!("no handler of the group {} subscribes to the topic {topic}", self.group.name);
            return Some((Reason::NoSubscriber, error));
        };
        let callback = headers.get(names::CALLBACK_NAME).filter(|callback| !callback.is_empty());
        if let Some(Err(error)) = callback.map(validate_topic) {
            return Some((
                Reason::MissingHeaders,
                format!("the header {} is not a valid topic: {error}", names::CALLBACK_NAME),
            ));
        }
        let error = disallowed_callback(&self.inbox.engine.options, &self.group.members[member], headers);
        error.map(|error| (Reason::CallbackNotAllowed, error))
    }

    /// Whether a message names another topic than the one it was sent to. This is not checked in an existing queue,
    /// which may get its messages by other routes, nor for a message that an operator has moved here by the queue's name,
    /// through the default exchange.
    fn is_misnamed(&self, topic: &str, routing_key: &str) -> bool {
        self.inbox.engine.options.match_routing_key
            && self.inbox.engine.broker.routing_key_is_topic()
            && !self.group.existing
            && topic != routing_key
            && *routing_key != *self.group.name
    }
}

/// Removes the headers that only the bus itself may set on a received message.
fn strip_reserved(headers: &mut Headers) {
    headers.retain(|name| !names::is_written_on_receipt(name));
}

/// Returns the error of a message that is parked because its sender asks for a reply to a topic that `callbacks_to` does
/// not allow; `None` if the message is handled.
pub(super) fn disallowed_callback(
    options: &CapOptions,
    member: &Member,
    headers: &Headers,
) -> Option<String> {
    let written = headers.get(names::CALLBACK_NAME).filter(|callback| !callback.is_empty())?;
    let topic = options.answered_callback(written);
    member.callbacks.parks(&topic).then(|| {
        let user = headers.get(names::VERIFIED_USER);
        let sender = user.map(|user| format!(" by the user {user:?}")).unwrap_or_default();
        format!("a reply to the topic {topic:?} is requested{sender}; callbacks_to does not allow that topic")
    })
}

/// The property in which the broker names the user over whose connection a message was published.
const USER_ID: &str = "user-id";

/// From this size on, the digest of a body is computed on a blocking thread, so that it does not delay other tasks.
const LARGE_BODY: usize = 1024 * 1024;

async fn digest(message: &Arc<Message>, user: Option<String>) -> Digest {
    let of = |message: &Message, user: Option<&str>| {
        Digest::of(message.name().unwrap_or_default(), &message.body, user)
    };
    if message.body.len() < LARGE_BODY {
        return of(message, user.as_deref());
    }
    let (shared, named) = (Arc::clone(message), user.clone());
    let made = tokio::task::spawn_blocking(move || of(&shared, named.as_deref())).await;
    // The closure does not panic, but a runtime that is shutting down may not run it.
    made.unwrap_or_else(|_| of(message, user.as_deref()))
}

fn move_aside(headers: &mut Headers, name: &'static str) {
    let value = headers.get(name).unwrap_or_default().replace('\0', "\u{fffd}");
    headers.remove(name);
    headers.insert(format!("cap-invalid-{}", name.trim_start_matches("cap-")), value);
}

/// Replaces control characters, which a storage may not accept.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
