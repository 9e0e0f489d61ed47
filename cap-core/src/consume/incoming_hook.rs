//! Deliveries from senders that do not write CAP's headers: the application's hook that supplies them, and what is kept of
//! a parked delivery so that the hook can be called again at a re-run.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::message::headers::names;
use crate::message::{Headers, Message};
use crate::transport::Incoming;
use cap_adapter::engine::caught;

type MapIncoming = dyn Fn(&Incoming) -> Option<Headers> + Send + Sync;

/// The application's hook that supplies headers for deliveries from senders that do not write CAP's.
#[derive(Clone, Default)]
pub(crate) struct IncomingHook(pub(crate) Option<Arc<MapIncoming>>);

impl IncomingHook {
    /// Sets the headers that the hook returns on the delivery, and returns whether it has set the topic. If the hook
    /// panics, the error is the text of the panic.
    pub(crate) fn apply(&self, delivery: &mut Incoming) -> Result<bool, String> {
        let Some(hook) = &self.0 else { return Ok(false) };
        let Some(given) = caught("map_incoming", || hook(delivery))? else { return Ok(false) };
        for (name, value) in given.iter() {
            delivery.headers.set(name.to_owned(), value.map(str::to_owned));
        }
        Ok(given.contains(names::MESSAGE_NAME))
    }

    /// Calls the hook again for a message that was parked because headers were missing.
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

/// Keeps in a header what the hook needs to know about the delivery. A sender's header of that name is removed on
/// receipt, so that what a sender writes is never mistaken for what the broker said.
pub(crate) fn remember(headers: &mut Headers, routing_key: &str, properties: &Headers) {
    let remembered = Remembered { routing_key: routing_key.to_owned(), properties: properties.clone() };
    // Serialization cannot fail: there are only strings in it.
    headers.insert(names::DELIVERY, serde_json::to_string(&remembered).unwrap_or_default());
}

/// Restores the delivery that was passed to [`remember`].
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
    let mut incoming = Incoming::new(0, remembered.routing_key, headers, message.body.clone());
    incoming.properties = remembered.properties;
    incoming.redelivered = true;
    incoming
}

/// Restores what an earlier version kept. A sender may have added to it, so that the property that the broker verifies is
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

/// The user that sent a message, as verified by the broker.
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
        // Headers as an earlier version stored them: its own, and those of a sender that it did not strip.
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
        // The new header is written only by us.
        old.remove("cap-routing-key");
        let properties: Headers = [("user-id", "mallory")].into_iter().collect();
        remember(&mut old, "order.placed", &properties);
        let delivery = recall(&Message::new(old, ""));
        assert_eq!(delivery.properties, properties);
        assert!(delivery.headers.is_empty());
    }
}
