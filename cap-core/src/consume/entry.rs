//! What a delivery becomes in the inbox: a row for its handler, or a parked one with the reason.

use std::sync::Arc;

use super::consumer::Consumption;
use super::foreign::remember;
use crate::error::{StorageError, error_chain};
use crate::message::headers::names;
use crate::message::{Headers, Message, MessageId, validate_topic};
use crate::storage::{Entry, NewIncoming, Reason};
use crate::transport::Incoming;

impl Consumption {
    /// Makes a delivery a row, or a parked row with its reason.
    pub(super) fn row(&self, mut delivery: Incoming) -> NewIncoming {
        let hooked = self.hook.apply(&mut delivery);
        let mut headers = delivery.headers;
        for name in [names::EXCEPTION, names::AUDIT, names::RETRY, names::BROKER_DELAY] {
            headers.remove(name);
        }
        headers.insert(names::GROUP, &*self.group.name);
        let mut problem = self.problem(&mut headers, &delivery.routing_key);
        if let Err(panic) = hooked {
            problem = Some((Reason::MissingHeaders, panic));
        }
        if matches!(problem, Some((Reason::MissingHeaders, _))) {
            remember(&mut headers, &delivery.routing_key, &delivery.properties);
        }
        let entry = match problem {
            None => Entry::Scheduled { held: true },
            Some((reason, error)) => self.parked(reason, error),
        };
        NewIncoming {
            id: self.context.composer.ids.next_id(),
            group: Arc::clone(&self.group.name),
            message: Arc::new(Message::new(headers, delivery.body)),
            entry,
        }
    }

    fn parked(&self, reason: Reason, error: String) -> Entry {
        let (keep, notify) = (self.context.options().failed_expire_after, self.context.notifies());
        Entry::Parked { reason, error, keep, notify }
    }

    /// The same row under another id: a store refuses one that another row has.
    pub(super) fn renumbered(&self, row: NewIncoming) -> NewIncoming {
        NewIncoming { id: self.context.composer.ids.next_id(), ..row }
    }

    /// A row that the store refuses, parked with what it said. Of the headers only plain text is left, the body is as
    /// it came.
    pub(super) fn parked_as_refused(&self, row: &NewIncoming, refusal: &StorageError) -> NewIncoming {
        let mut headers = Headers::new();
        for (name, value) in row.message.headers.iter() {
            headers.set(plain(name), value.map(plain));
        }
        let error = format!("the store refused the message: {}", error_chain(refusal));
        NewIncoming {
            id: self.context.composer.ids.next_id(),
            group: Arc::clone(&row.group),
            message: Arc::new(Message::new(headers, row.message.body.clone())),
            entry: self.parked(Reason::Corrupt, error),
        }
    }

    /// Why nobody here can handle a message with these headers. Values that no store's column could hold are moved
    /// to a header of another name, so that the row can still be found.
    fn problem(&self, headers: &mut Headers, routing_key: &str) -> Option<(Reason, String)> {
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
        if self.group.member_for(topic).is_none() {
            let error = format!("no handler of the group {} takes the topic {topic}", self.group.name);
            return Some((Reason::NoSubscriber, error));
        }
        let callback = headers.get(names::CALLBACK_NAME).filter(|callback| !callback.is_empty());
        if let Some(Err(error)) = callback.map(validate_topic) {
            return Some((
                Reason::MissingHeaders,
                format!("the header {} is no topic: {error}", names::CALLBACK_NAME),
            ));
        }
        None
    }
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
