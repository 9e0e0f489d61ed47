//! A message in the form in which it is sent to the broker, and the reasons why it cannot be sent.

use std::sync::Arc;

use bytes::Bytes;
use cap_adapter::error::TransportError;
use cap_adapter::message::Message;
use cap_adapter::message::headers::names;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::driver_fixes::returned_messages::SentMessage;
use crate::error::invalid;

/// Survives a restart of the broker.
const PERSISTENT: u8 = 2;
/// Left free in the frame that carries the headers, since the broker adds some of its own when it delivers again
/// (`x-delivery-count`) or dead-letters (`x-death`), and no consumer could read a frame that is too long.
const RESERVED: usize = 4096;
/// The bytes that AMQP has for names, ids and routing keys.
const SHORT_STRING: usize = 255;
/// The broker closes the channel over these, unless they are lists. It knows them in this spelling only.
const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];

/// A message ready to be published.
#[derive(Debug)]
pub(crate) struct AmqpMessage {
    pub(crate) id: ShortString,
    /// The exchange to go to, if it is not the bus's.
    pub(crate) exchange: Option<ShortString>,
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
    /// Bytes of the frame that carries the headers.
    header_frame: usize,
}

impl AmqpMessage {
    /// Translates a message.
    ///
    /// # Errors
    ///
    /// Invalid, when AMQP has no room for its id, its topic or the name of a header, or RabbitMQ does not take one of
    /// its headers.
    pub(crate) fn new(message: &Arc<Message>) -> Result<Self, TransportError> {
        let id = short_string(required(message, names::MESSAGE_ID)?)?;
        let routing_key = short_string(required(message, names::MESSAGE_NAME)?)?;
        let header_frame = header_frame(message)?;
        let mut table = FieldTable::default();
        for (name, value) in message.headers.iter().filter(|(name, _)| !names::stays(name)) {
            let value = value.map_or(AMQPValue::Void, |value| AMQPValue::LongString(value.into()));
            table.insert(short_string(name)?, value);
        }
        let properties = BasicProperties::default()
            .with_message_id(id.clone())
            .with_delivery_mode(PERSISTENT)
            .with_headers(table);
        Ok(Self { id, exchange: None, routing_key, properties, body: message.body.clone(), header_frame })
    }

    /// The same message by way of another exchange, and with another routing key if one is given.
    pub(crate) fn by_way_of(self, (exchange, routing_key): (ShortString, Option<ShortString>)) -> Self {
        let routing_key = routing_key.unwrap_or(self.routing_key);
        Self { exchange: Some(exchange), routing_key, ..self }
    }

    /// Whether the headers fit into the one frame that AMQP has for them.
    pub(crate) fn check_frame(&self, max_frame: usize) -> Result<(), TransportError> {
        check_frame(self.id.as_str(), self.header_frame, max_frame)
    }

    /// What it is recognized by when the broker returns it.
    pub(crate) fn as_sent(&self) -> SentMessage<'_> {
        SentMessage { id: self.id.as_str(), routing_key: self.routing_key.as_str(), body: &self.body }
    }

    /// The bytes that lapin has to hold for this message.
    pub(crate) fn size(&self) -> usize {
        self.header_frame + self.body.len()
    }
}

/// Whether RabbitMQ could take a message, as far as that is known before it is sent. Allocates only for an error.
pub(crate) fn check(message: &Message, max_frame: usize) -> Result<(), TransportError> {
    let id = required(message, names::MESSAGE_ID)?;
    required(message, names::MESSAGE_NAME)?;
    check_frame(id, header_frame(message)?, max_frame)
}

fn check_frame(id: &str, header_frame: usize, max_frame: usize) -> Result<(), TransportError> {
    let limit = max_frame.saturating_sub(RESERVED);
    if header_frame <= limit {
        return Ok(());
    }
    Err(invalid(format!(
        "the headers of message {id:?} take {header_frame} bytes, and this connection has room for {limit}; put large \
         data into the body, or raise frame_max, the broker's and that of the url (?frame_max=)"
    )))
}

/// The bytes of the frame that carries the headers. Checks each header on the way.
fn header_frame(message: &Message) -> Result<usize, TransportError> {
    let id = message.headers.get(names::MESSAGE_ID).map_or(0, str::len);
    // Frame, class, weight, size of the body, flags, message-id, delivery-mode, length of the table.
    let mut bytes = 8 + 2 + 2 + 8 + 2 + 1 + id + 1 + 4;
    for (name, value) in message.headers.iter().filter(|(name, _)| !names::stays(name)) {
        if name.len() > SHORT_STRING {
            let start: String = name.chars().take(40).collect();
            return Err(invalid(format!(
                "the name of header {start:?}… takes {} bytes; AMQP allows {SHORT_STRING}",
                name.len()
            )));
        }
        if ROUTING_HEADERS.contains(&name) {
            return Err(invalid(format!(
                "RabbitMQ reads header {name:?} as a list of more routing keys and refuses a text there; choose another \
                 name, such as {:?}",
                name.to_ascii_lowercase()
            )));
        }
        bytes += 1 + name.len() + 1 + value.map_or(0, |value| 4 + value.len());
    }
    Ok(bytes)
}

/// A header that goes into a field of the protocol and that .NET consumers cannot do without.
fn required<'a>(message: &'a Message, name: &'static str) -> Result<&'a str, TransportError> {
    let value = message.headers.get(name).filter(|value| !value.is_empty());
    let value = value.ok_or_else(|| invalid(format!("a message without header {name:?} cannot be sent")))?;
    if value.len() > SHORT_STRING {
        let length = value.len();
        return Err(invalid(format!("header {name:?} takes {length} bytes; AMQP allows {SHORT_STRING}")));
    }
    Ok(value)
}

fn short_string(text: &str) -> Result<ShortString, TransportError> {
    ShortString::try_new(text)
        .map_err(|_| invalid(format!("a name takes {} bytes; AMQP allows {SHORT_STRING}", text.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_adapter::message::Headers;

    fn message(headers: &[(&'static str, &str)]) -> Arc<Message> {
        Arc::new(Message::new(headers.iter().copied().collect(), "{}"))
    }

    fn headers() -> Headers {
        [(names::MESSAGE_ID, "7"), (names::MESSAGE_NAME, "order.paid")].into_iter().collect()
    }

    #[test]
    fn headers_are_long_strings_or_void_without_cap_exception() {
        let mut headers = headers();
        headers.insert_null(names::CALLBACK_NAME);
        for stays in [names::EXCEPTION, names::AUDIT, names::BROKER_DELAY] {
            headers.insert(stays, "boom");
        }
        let outgoing = AmqpMessage::new(&Arc::new(Message::new(headers, "{}"))).unwrap();
        assert_eq!(outgoing.routing_key.as_str(), "order.paid");
        assert_eq!(outgoing.properties.message_id().as_ref().unwrap().as_str(), "7");
        let table = outgoing.properties.headers().as_ref().unwrap().inner();
        assert_eq!(table.get("cap-callback-name"), Some(&AMQPValue::Void));
        assert_eq!(table.get("cap-msg-id"), Some(&AMQPValue::LongString("7".into())));
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn the_frame_is_measured_to_the_byte() {
        let outgoing =
            AmqpMessage::new(&message(&[("cap-msg-id", "7"), ("cap-msg-name", "t"), ("a", "xyz")])).unwrap();
        // As in the protocol's grammar: the head, and three fields of name length, name, type, length, value.
        let table = (1 + 10 + 1 + 4 + 1) + (1 + 12 + 1 + 4 + 1) + (1 + 1 + 1 + 4 + 3);
        assert_eq!(outgoing.header_frame, 8 + 14 + 2 + 1 + 4 + table);
        assert!(outgoing.check_frame(outgoing.header_frame + RESERVED).is_ok());
        let error = outgoing.check_frame(outgoing.header_frame + RESERVED - 1).unwrap_err();
        assert!(error.to_string().contains("headers of message \"7\""), "{error}");
    }

    #[test]
    fn what_the_protocol_cannot_hold_is_refused() {
        let long = "x".repeat(256);
        for (headers, reason) in [
            (vec![("cap-msg-name", "t")], "\"cap-msg-id\" cannot be sent"),
            (vec![("cap-msg-id", "7")], "\"cap-msg-name\" cannot be sent"),
            (vec![("cap-msg-id", ""), ("cap-msg-name", "t")], "\"cap-msg-id\""),
            (vec![("cap-msg-id", long.as_str()), ("cap-msg-name", "t")], "256 bytes"),
            (vec![("cap-msg-id", "7"), ("cap-msg-name", long.as_str())], "256 bytes"),
        ] {
            let error = AmqpMessage::new(&message(&headers)).unwrap_err();
            assert_eq!(error.kind(), cap_adapter::error::TransportErrorKind::Invalid);
            assert!(error.to_string().contains(reason), "{error}");
        }
        let mut with_long_name = headers();
        with_long_name.insert(long, "x");
        let error = AmqpMessage::new(&Arc::new(Message::new(with_long_name, ""))).unwrap_err();
        assert!(error.to_string().contains("256 bytes; AMQP allows 255"), "{error}");
    }
}
