//! The headers of a message: names, their order, and null values.
//!
//! Names and meanings are those of .NET CAP, so that both sides read each other's messages.

use std::borrow::Cow;

use foldhash::quality::RandomState;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// The header names that the bus writes and reads. All are lower case and compared exactly.
pub mod names {
    /// Identifies the message: a snowflake as a decimal string, or any other unique text such as a GUID.
    pub const MESSAGE_ID: &str = "cap-msg-id";
    /// The topic, with the bus's topic prefix. This header selects the handler; on RabbitMQ it must equal the routing
    /// key.
    pub const MESSAGE_NAME: &str = "cap-msg-name";
    /// The short name of the payload's type. Informative.
    pub const MESSAGE_TYPE: &str = "cap-msg-type";
    /// The full name of the consuming group; written on receipt.
    pub const GROUP: &str = "cap-msg-group";
    /// The id of the message that this one replies to, or the message's own id.
    pub const CORRELATION_ID: &str = "cap-corr-id";
    /// The number of replies before this one in its chain, from 0.
    pub const CORRELATION_SEQUENCE: &str = "cap-corr-seq";
    /// The topic to which the handler's return value is published.
    pub const CALLBACK_NAME: &str = "cap-callback-name";
    /// On a reply: the topic of the request.
    pub const REQUEST_NAME: &str = "cap-request-name";
    /// On a reply: the user who sent the request, as verified by the broker ([`VERIFIED_USER`]). Absent if the broker
    /// has verified none.
    pub const REQUEST_USER: &str = "cap-request-user";
    /// On a received message: the user who sent it, as verified by the broker; from RabbitMQ's property `user-id`,
    /// which the broker compares with the connection's login. A value set by a sender is removed on receipt. Never
    /// sent to a broker.
    pub const VERIFIED_USER: &str = "cap-verified-user";
    /// When the message was sent, or is due: `MM/dd/yyyy HH:mm:ss`, in UTC.
    pub const SENT_TIME: &str = "cap-senttime";
    /// The delay of a delayed message, in the .NET `TimeSpan` form `[d.]hh:mm:ss[.fffffff]`.
    pub const DELAY_TIME: &str = "cap-delaytime";
    /// The node that ran the handler.
    pub const EXECUTION_INSTANCE: &str = "cap-exec-instance-id";
    /// The last error. Kept in the storage; never sent to a broker.
    pub const EXCEPTION: &str = "cap-exception";
    /// The actions of operators on the stored message, one line each, such as `2026-01-01T03:00:00Z alice re-ran it`.
    /// Kept in the storage; never sent to a broker.
    pub const AUDIT: &str = "cap-audit";
    /// On a copy that a broker keeps until the next attempt: the inbox row and its epoch, `<id>:<epoch>`. Read only
    /// together with [`RETRY_MAC`]; alone it is removed on receipt.
    pub const RETRY: &str = "cap-retry";
    /// On such a copy: the proof that a node of this storage sent it to this group, in hexadecimal.
    pub const RETRY_MAC: &str = "cap-retry-mac";
    /// On a stored message that is to be delayed at the broker: the delay in milliseconds. Never sent to a broker.
    pub const BROKER_DELAY: &str = "cap-broker-delay";

    /// On a message that was parked because of missing headers: its routing key and properties, as JSON, for
    /// `map_incoming` at a re-run. A value set by a sender is removed on receipt. Never sent to a broker.
    pub const DELIVERY: &str = "cap-delivery";
    /// The header that earlier versions wrote instead of [`DELIVERY`].
    pub const ROUTING_KEY: &str = "cap-routing-key";
    /// The prefix that earlier versions used for the names of properties.
    pub const PROPERTY: &str = "cap-property-";

    /// A header name as text that lives as long as the program, if it is one of those above that messages have: a received name
    /// need not be copied then.
    #[must_use]
    pub fn known(name: &str) -> Option<&'static str> {
        const KNOWN: [&str; 15] = [
            CALLBACK_NAME,
            MESSAGE_ID,
            CORRELATION_ID,
            CORRELATION_SEQUENCE,
            MESSAGE_NAME,
            MESSAGE_TYPE,
            SENT_TIME,
            DELAY_TIME,
            GROUP,
            REQUEST_NAME,
            REQUEST_USER,
            EXECUTION_INSTANCE,
            TRACE_PARENT,
            TRACE_STATE,
            BAGGAGE,
        ];
        KNOWN.into_iter().find(|known| *known == name)
    }

    /// Whether this header is reserved for the bus on received messages: a value set by a sender is not trusted.
    #[must_use]
    pub fn is_written_on_receipt(name: &str) -> bool {
        matches!(name, EXCEPTION | AUDIT | RETRY | RETRY_MAC | BROKER_DELAY)
            || matches!(name, VERIFIED_USER | DELIVERY | ROUTING_KEY)
            || name.starts_with(PROPERTY)
    }

    /// Whether a header stays in the storage and is not sent to a broker.
    #[must_use]
    pub fn stays(name: &str) -> bool {
        matches!(name, EXCEPTION | AUDIT | BROKER_DELAY | VERIFIED_USER | DELIVERY)
    }

    /// The W3C trace context.
    pub const TRACE_PARENT: &str = "traceparent";
    /// The vendor part of the W3C trace context.
    pub const TRACE_STATE: &str = "tracestate";
    /// W3C baggage.
    pub const BAGGAGE: &str = "baggage";
}

/// An ordered map of header names to text or null.
///
/// Names are case-sensitive. The order of insertion is kept, when sent and when stored. A header may be present and
/// null: CAP writes `cap-callback-name` that way if there is no callback. [`get`](Self::get) does not distinguish
/// null from absent; [`contains`](Self::contains) does.
///
/// ```
/// use cap_core::message::Headers;
///
/// let mut headers = Headers::new();
/// headers.insert("tenant", "acme");
/// headers.insert_null("cap-callback-name");
/// assert_eq!(headers.get("tenant"), Some("acme"));
/// assert_eq!(headers.get("cap-callback-name"), None);
/// assert!(headers.contains("cap-callback-name"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Headers(IndexMap<Cow<'static, str>, Option<String>, RandomState>);

impl Headers {
    /// Creates an empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a header; `None` if it is absent or null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| value.as_deref())
    }

    /// Whether the header is present, including as null.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Sets a header. An existing header keeps its position.
    pub fn insert(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.0.insert(name.into(), Some(value.into()));
    }

    /// Sets a header to null.
    pub fn insert_null(&mut self, name: impl Into<Cow<'static, str>>) {
        self.0.insert(name.into(), None);
    }

    /// Sets a header to text or to null.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: Option<String>) {
        self.0.insert(name.into(), value);
    }

    /// Removes a header and returns whether it was present. The others keep their order.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.shift_remove(name).is_some()
    }

    /// Keeps the headers whose names satisfy the predicate, in their order.
    pub fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        self.0.retain(|name, _| wanted(name));
    }

    /// All headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_deref()))
    }

    /// The number of headers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no headers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The size of names and values in bytes, for limits and batch sizes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.map_or(0, str::len)).sum()
    }

    /// The headers as a JSON object of strings and nulls, in order, as they are stored.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A map with text keys and text or null values can always be serialized.
        serde_json::to_string(&self.0).unwrap_or_else(|_| String::from("{}"))
    }

    /// Parses the output of [`to_json`](Self::to_json).
    ///
    /// # Errors
    ///
    /// When the text is not a JSON object of strings and nulls.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl<N: Into<Cow<'static, str>>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), Some(value.into()))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_order_nulls_and_awkward_text() {
        let mut headers = Headers::new();
        headers.insert("z", "1");
        headers.insert_null("a");
        headers.insert("m", "quote \" nul \0 snowman \u{2603}");
        let json = headers.to_json();
        assert!(json.starts_with(r#"{"z":"1","a":null,"m":"#), "{json}");
        let back = Headers::from_json(&json).unwrap();
        assert_eq!(back, headers);
        assert_eq!(back.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["z", "a", "m"]);
    }

    #[test]
    fn known_names_are_those_that_messages_have() {
        for name in [names::MESSAGE_ID, names::SENT_TIME, names::TRACE_PARENT] {
            assert_eq!(names::known(name), Some(name));
        }
        for name in ["", "cap-msg-i", "CAP-MSG-ID", "tenant"] {
            assert_eq!(names::known(name), None);
        }
    }

    #[test]
    fn other_json_is_refused() {
        for text in ["", "null", "[]", "{\"a\":1}", "{\"a\":{}}"] {
            assert!(Headers::from_json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn replacing_keeps_the_place_and_removing_keeps_the_order() {
        let mut headers: Headers = [("a", "1"), ("b", "2"), ("c", "3")].into_iter().collect();
        headers.insert("a", "4");
        assert!(headers.remove("b"));
        assert!(!headers.remove("b"));
        assert_eq!(headers.to_json(), r#"{"a":"4","c":"3"}"#);
    }
}
