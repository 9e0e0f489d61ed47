//! Deliveries of senders that do not write cap's headers: the application's hook, and what is kept of a delivery that
//! had to be parked, so that the hook can still be asked when it is run again.

use std::fmt;
use std::sync::Arc;

use crate::message::{Headers, Message};
use crate::panics::caught;
use crate::transport::Incoming;

type MapIncoming = dyn Fn(&Incoming) -> Option<Headers> + Send + Sync;

/// The application's hook that gives headers to deliveries of senders that write none.
#[derive(Clone, Default)]
pub(crate) struct IncomingHook(pub(crate) Option<Arc<MapIncoming>>);

/// The header in which the routing key of a parked delivery is kept.
const ROUTING_KEY: &str = "cap-routing-key";
/// What stands before the names of its properties.
const PROPERTY: &str = "cap-property-";

impl IncomingHook {
    /// Sets what the hook says over the delivery's headers. A panic of the hook is the text of the error.
    pub(crate) fn apply(&self, delivery: &mut Incoming) -> Result<(), String> {
        let Some(hook) = &self.0 else { return Ok(()) };
        for (name, value) in caught("map_incoming", || hook(delivery))?.iter().flat_map(Headers::iter) {
            delivery.headers.set(name.to_owned(), value.map(str::to_owned));
        }
        Ok(())
    }

    /// Asks the hook again about a message that was parked for want of headers.
    pub(crate) fn apply_again(&self, message: &Message) -> Result<Message, String> {
        let mut delivery = recall(message);
        self.apply(&mut delivery)?;
        Ok(Message::new(delivery.headers, delivery.body))
    }
}

impl fmt::Debug for IncomingHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IncomingHook({})", self.0.is_some())
    }
}

/// Keeps in the headers what a hook would want to know of the delivery.
pub(crate) fn remember(headers: &mut Headers, routing_key: &str, properties: &Headers) {
    headers.insert(ROUTING_KEY, routing_key);
    for (name, value) in properties.iter() {
        headers.set(format!("{PROPERTY}{name}"), value.map(str::to_owned));
    }
}

/// The delivery that [`remember`] was told of.
fn recall(message: &Message) -> Incoming {
    let (mut headers, mut properties) = (Headers::new(), Headers::new());
    for (name, value) in message.headers.iter() {
        let value = value.map(str::to_owned);
        match name.strip_prefix(PROPERTY) {
            Some(property) => properties.set(property.to_owned(), value),
            None if name == ROUTING_KEY => {}
            None => headers.set(name.to_owned(), value),
        }
    }
    Incoming {
        tag: 0,
        routing_key: message.headers.get(ROUTING_KEY).unwrap_or_default().to_owned(),
        headers,
        properties,
        body: message.body.clone(),
        redelivered: true,
        delayed: false,
    }
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
}
