//! What a delivery becomes in the inbox: a row for its handler, or a parked one with the reason.

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

/// So much is kept of a body that the store does not take as a whole.
const KEPT_BYTES: usize = 64 * 1024;

impl GroupInbox {
    /// Makes a delivery a row, or a parked row with its reason.
    fn row(&self, mut delivery: Incoming) -> NewIncoming {
        // Before the hook sees them, too: what a sender writes there is nobody's word.
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

    /// Makes deliveries rows, each with its digest.
    pub(super) async fn rows(&self, deliveries: Vec<Incoming>) -> Vec<NewIncoming> {
        let mut rows = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            // The hook may say what it likes; who the sender is, the broker says.
            let user = self.inbox.engine.options.user_in_identity;
            let user = user.then(|| delivery.properties.get(USER_ID).map(str::to_owned)).flatten();
            let mut row = self.row(delivery);
            row.identity = Identity::new(digest(&row.message, user).await);
            rows.push(row);
        }
        rows
    }

    /// A row whose message id belongs to another message: parked, under an id of its own.
    pub(super) fn apart(&self, row: &NewIncoming) -> NewIncoming {
        let mut error = format!(
            "the message id {:?} was received before with another topic or body; that message has the id, and this one \
             waits for an operator, who can run or delete it",
            row.message.id().unwrap_or_default()
        );
        if let Entry::Parked { error: own, .. } = &row.entry {
            error = format!("{error}; apart from that: {own}");
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

    /// The same row under another id: a store refuses one that another row has.
    pub(super) fn renumbered(&self, row: NewIncoming) -> NewIncoming {
        NewIncoming { id: self.inbox.engine.ids.next_id(), ..row }
    }

    /// A row that the store refuses, parked with what it said. Of the headers only plain text is left, the body is as
    /// it came.
    pub(super) fn parked_as_refused(&self, row: &NewIncoming, refusal: &StorageError) -> NewIncoming {
        let error = format!("the store refused the message: {}", error_chain(refusal));
        self.parked_with(row, row.message.body.clone(), error)
    }

    /// As [`parked_as_refused`](Self::parked_as_refused), with the first 64 KiB of a body that the store does not take.
    pub(super) fn parked_in_part(&self, row: &NewIncoming, refusal: &StorageError) -> NewIncoming {
        let body = &row.message.body;
        let error = format!(
            "the store does not take a message of this size, even parked; of the {} bytes of its body only the first {} \
             are kept: {}",
            body.len(),
            body.len().min(KEPT_BYTES),
            error_chain(refusal)
        );
        // A copy: a slice would keep all of it in memory.
        let kept = Bytes::copy_from_slice(&body[..body.len().min(KEPT_BYTES)]);
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

    /// Why nobody here can handle a message with these headers. Values that no store's column could hold are moved
    /// to a header of another name, so that the row can still be found.
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
            let error = format!("the header {name} is no topic: {error}");
            move_aside(headers, name);
            return Some((Reason::MissingHeaders, error));
        }
        let missing: Vec<&str> =
            [id, name].into_iter().filter(|name| headers.get(name).is_none_or(str::is_empty)).collect();
        if !missing.is_empty() {
            let error = format!(
                "the delivery has no {}; it came with the routing key {routing_key:?}",
                missing.join(" and no ")
            );
            return Some((Reason::MissingHeaders, error));
        }
        let topic = headers.get(name).unwrap_or_default();
        if !named_by_hook && self.is_misnamed(topic, routing_key) {
            let error = format!(
                "the header {name} says {topic:?}, and the message was sent with the routing key {routing_key:?}; \
                 a broker that limits who may write to which topic has allowed the latter only"
            );
            return Some((Reason::NameMismatch, error));
        }
        let Some(member) = self.group.member_for(topic) else {
            let error = format!("no handler of the group {} takes the topic {topic}", self.group.name);
            return Some((Reason::NoSubscriber, error));
        };
        let callback = headers.get(names::CALLBACK_NAME).filter(|callback| !callback.is_empty());
        if let Some(Err(error)) = callback.map(validate_topic) {
            return Some((
                Reason::MissingHeaders,
                format!("the header {} is no topic: {error}", names::CALLBACK_NAME),
            ));
        }
        let refused = refused_callback(&self.inbox.engine.options, &self.group.members[member], headers);
        refused.map(|error| (Reason::CallbackNotAllowed, error))
    }

    /// Whether a message names another topic than it was sent to. Not looked at in a queue of somebody else's, which gets
    /// its messages by any way, nor for one that an operator has moved here through the default exchange, by the queue's
    /// name.
    fn is_misnamed(&self, topic: &str, routing_key: &str) -> bool {
        self.inbox.engine.options.match_routing_key
            && self.inbox.engine.broker.routing_key_is_topic()
            && !self.group.existing
            && topic != routing_key
            && *routing_key != *self.group.name
    }
}

/// Removes what only the bus itself may write on a received message.
fn strip_reserved(headers: &mut Headers) {
    headers.retain(|name| !names::is_written_on_receipt(name));
}

/// Why a message is not handled whose sender asks for a reply to a topic that this service does not publish to for
/// others; `None` if it is handled.
pub(super) fn refused_callback(options: &CapOptions, member: &Member, headers: &Headers) -> Option<String> {
    let written = headers.get(names::CALLBACK_NAME).filter(|callback| !callback.is_empty())?;
    let topic = options.answered_callback(written);
    member.callbacks.parks(&topic).then(|| {
        let user = headers.get(names::VERIFIED_USER);
        let sender = user.map(|user| format!(" by the user {user:?}")).unwrap_or_default();
        format!("a reply to the topic {topic:?} is requested{sender}; callbacks_to does not allow that topic")
    })
}

/// The property in which a broker names the user whose connection a message came by.
const USER_ID: &str = "user-id";

/// From this size on, a digest is not made between two polls of other tasks.
const LARGE: usize = 1024 * 1024;

async fn digest(message: &Arc<Message>, user: Option<String>) -> Digest {
    let of = |message: &Message, user: Option<&str>| {
        Digest::of(message.name().unwrap_or_default(), &message.body, user)
    };
    if message.body.len() < LARGE {
        return of(message, user.as_deref());
    }
    let (shared, named) = (Arc::clone(message), user.clone());
    let made = tokio::task::spawn_blocking(move || of(&shared, named.as_deref())).await;
    // It does not panic; a runtime that is being dropped may refuse it.
    made.unwrap_or_else(|_| of(message, user.as_deref()))
}

fn move_aside(headers: &mut Headers, name: &'static str) {
    let value = headers.get(name).unwrap_or_default().replace('\0', "\u{fffd}");
    headers.remove(name);
    headers.insert(format!("cap-invalid-{}", name.trim_start_matches("cap-")), value);
}

/// A text without what a store might choke on.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
