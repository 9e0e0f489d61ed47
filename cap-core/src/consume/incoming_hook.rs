//! Deliveries of senders that do not write cap's headers: the application's hook, and what is kept of a delivery that
//! had to be parked, so that the hook can still be asked when it is run again.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::message::headers::names;
use crate::message::{Headers, Message};
use crate::transport::Incoming;
use cap_adapter::engine::caught;

type MapIncoming = dyn Fn(&Incoming) -> Option<Headers> + Send + Sync;

/// The application's hook that gives headers to deliveries of senders that write none.
#[derive(Clone, Default)]
pub(crate) struct IncomingHook(pub(crate) Option<Arc<MapIncoming>>);

impl IncomingHook {
    /// Sets what the hook says over the delivery's headers, and gives back whether it has named the topic. A panic of the
    /// hook is the text of the error.
    pub(crate) fn apply(&self, delivery: &mut Incoming) -> Result<bool, String> {
        let Some(hook) = &self.0 else { return Ok(false) };
        let Some(given) = caught("map_incoming", || hook(delivery))? else { return Ok(false) };
        for (name, value) in given.iter() {
            delivery.headers.set(name.to_owned(), value.map(str::to_owned));
        }
        Ok(given.contains(names::MESSAGE_NAME))
    }

    /// Asks the hook again about a message that was parked for want of headers.
    pub(crate) fn apply_again(&self, message: &Message) -> Result<Message, String> {
        let mut delivery = recall(message);
        self.apply(&mut delivery)?;
        if let Some(user) = verified_user(&delivery.properties) {
            delivery.headers.insert(names::VERIFIED_USER, user);
        }
        Ok(Message::new(delivery.headers, delivery.body))
    }
}

impl fmt::Debug for IncomingHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IncomingHook({})", self.0.is_some())
    }
}

/// What a hook would want to know of a delivery, apart from the sender's headers.
#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    routing_key: String,
    #[serde(default)]
    properties: Headers,
}

/// Keeps in the headers what a hook would want to know of the delivery. One header of a name that no sender's header
/// has, as those are removed on receipt: what a sender writes is never taken for what the broker said.
pub(crate) fn remember(headers: &mut Headers, routing_key: &str, properties: &Headers) {
    let remembered = Remembered { routing_key: routing_key.to_owned(), properties: properties.clone() };
    // Texts only: it always has a JSON form.
    headers.insert(names::DELIVERY, serde_json::to_string(&remembered).unwrap_or_default());
}

/// The delivery that [`remember`] was told of.
fn recall(message: &Message) -> Incoming {
    let stored = &message.headers;
    let remembered = match stored.get(names::ROUTING_KEY) {
        Some(routing_key) => remembered_before(stored, routing_key),
        None => {
            stored.get(names::DELIVERY).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
        }
    };
    let mut headers = stored.clone();
    headers.retain(|name| {
        matches!(name, names::AUDIT | names::EXCEPTION) || !names::is_written_on_receipt(name)
    });
    Incoming {
        tag: 0,
        routing_key: remembered.routing_key,
        headers,
        properties: remembered.properties,
        body: message.body.clone(),
        redelivered: true,
        delayed: false,
    }
}

/// What an earlier version has remembered, which a sender may have added to: the one property that the broker verifies is
/// left out.
fn remembered_before(stored: &Headers, routing_key: &str) -> Remembered {
    let mut properties = Headers::new();
    for (name, value) in stored.iter() {
        if let Some(property) = name.strip_prefix(names::PROPERTY).filter(|property| *property != "user-id") {
            properties.set(property.to_owned(), value.map(str::to_owned));
        }
    }
    Remembered { routing_key: routing_key.to_owned(), properties }
}

/// The sender's user, if the broker has verified it.
pub(super) fn verified_user(properties: &Headers) -> Option<&str> {
    properties.get("user-id").filter(|user| !user.is_empty() && !user.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_recalled() {
        let mut headers: Headers = [("tenant", "acme")].into_iter().collect();
        let properties: Headers = [("message-id", "m-1"), ("type", "Order")].into_iter().collect();
        remember(&mut headers, "order.placed", &properties);
        let delivery = recall(&Message::new(headers, "body"));
        assert_eq!(delivery.routing_key, "order.placed");
        assert_eq!(delivery.properties, properties);
        assert_eq!(delivery.headers, [("tenant", "acme")].into_iter().collect());
        assert_eq!(&delivery.body[..], b"body");
    }

    #[test]
    fn forged_properties_never_become_properties() {
        // Issue 9, row 9: what an earlier version has stored beside its own, and what it has not stripped.
        let mut old: Headers = [
            ("cap-property-user-id", "admin"),
            ("cap-delivery", r#"{"routing_key":"x","properties":{"user-id":"admin"}}"#),
            ("cap-verified-user", "admin"),
            ("cap-property-message-id", "m-1"),
            ("cap-routing-key", "order.placed"),
        ]
        .into_iter()
        .collect();
        let delivery = recall(&Message::new(old.clone(), ""));
        assert_eq!(delivery.routing_key, "order.placed");
        assert_eq!(delivery.properties, [("message-id", "m-1")].into_iter().collect());
        assert!(delivery.headers.is_empty());
        // What stands in the new form is ours alone.
        old.remove("cap-routing-key");
        let properties: Headers = [("user-id", "mallory")].into_iter().collect();
        remember(&mut old, "order.placed", &properties);
        let delivery = recall(&Message::new(old, ""));
        assert_eq!(delivery.properties, properties);
        assert!(delivery.headers.is_empty());
    }
}
