//! The extractor [`XDeath`]: how a message came into a dead-letter queue.

use std::time::{Duration, SystemTime};

use cap_adapter::error::json_error_text;
use cap_adapter::message::Headers;
use cap_adapter::{Delivery, FromDelivery, HandlerError};
use serde::Deserialize;

const HEADER: &str = "x-death";

/// The deaths of a message: why the broker has dead-lettered it, from which queues, how often. The latest comes first.
/// It is empty for a message that was never dead-lettered.
///
/// As an argument it is taken from the header `x-death`; what is there and cannot be read parks the message as
/// undecodable.
///
/// ```
/// use cap_core::prelude::*;
/// use cap_rabbitmq::{DeathReason, XDeath};
///
/// #[cap_subscribe("order.paid", queue = "orders.dead")]
/// async fn look(body: RawBody, deaths: XDeath) -> Result<(), HandlerError> {
///     if let Some(latest) = deaths.0.first()
///         && latest.reason == DeathReason::Rejected
///     {
///         println!("{} rejected it {} times: {:?}", latest.queue, latest.count, body.0);
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct XDeath(pub Vec<Death>);

/// What happened to a message in one queue, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Death {
    /// The queue in which it died.
    pub queue: String,
    /// The exchange that it had come through.
    pub exchange: String,
    /// Why it died.
    pub reason: DeathReason,
    /// How often it died in this queue for this reason.
    pub count: u64,
    /// The routing keys that it had.
    pub routing_keys: Vec<String>,
    /// When it died there for the first time, in whole seconds; `None` if the broker does not say.
    pub time: Option<SystemTime>,
}

/// Why a message died.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeathReason {
    /// Its time to live was over.
    Expired,
    /// A consumer rejected it.
    Rejected,
    /// The queue was full.
    MaxLen,
    /// It was delivered too often.
    DeliveryLimit,
    /// Any other reason, as the broker writes it.
    Other(String),
}

/// As the broker writes it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    queue: String,
    reason: String,
    #[serde(default)]
    exchange: String,
    #[serde(default = "once")]
    count: u64,
    #[serde(default)]
    routing_keys: Vec<String>,
    time: Option<u64>,
}

fn once() -> u64 {
    1
}

impl XDeath {
    /// Reads the header `x-death` of a message.
    ///
    /// # Errors
    ///
    /// Undecodable, when the header is there and is not what RabbitMQ writes.
    pub fn read(headers: &Headers) -> Result<Self, HandlerError> {
        let Some(text) = headers.get(HEADER) else { return Ok(Self::default()) };
        let entries: Vec<Entry> = serde_json::from_str(text).map_err(|error| {
            let error = json_error_text(&error);
            HandlerError::undecodable(format!("the header {HEADER} is not what RabbitMQ writes: {error}"))
        })?;
        Ok(Self(entries.into_iter().map(Death::from).collect()))
    }
}

impl FromDelivery for XDeath {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        Self::read(&delivery.message().headers)
    }
}

impl From<Entry> for Death {
    fn from(entry: Entry) -> Self {
        let Entry { queue, reason, exchange, count, routing_keys, time } = entry;
        let time = time.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        Self { queue, exchange, reason: DeathReason::from(reason), count, routing_keys, time }
    }
}

impl From<String> for DeathReason {
    fn from(reason: String) -> Self {
        match reason.as_str() {
            "expired" => Self::Expired,
            "rejected" => Self::Rejected,
            "maxlen" => Self::MaxLen,
            "delivery_limit" => Self::DeliveryLimit,
            _ => Self::Other(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consume::incoming_headers::incoming_headers;
    use lapin::BasicProperties;
    use lapin::types::{AMQPValue, FieldArray, FieldTable};

    fn read(text: &str) -> Result<XDeath, HandlerError> {
        XDeath::read(&[(HEADER, text)].into_iter().collect())
    }

    #[test]
    fn header_of_the_broker_is_read_completely() {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut entry = FieldTable::default();
        entry.insert("count".into(), AMQPValue::LongLongInt(3));
        entry.insert("exchange".into(), text("ex \"quoted\""));
        entry.insert("queue".into(), text("grün"));
        entry.insert("reason".into(), text("delivery_limit"));
        let keys = FieldArray::from(vec![text("a.b"), text("")]);
        entry.insert("routing-keys".into(), AMQPValue::FieldArray(keys));
        entry.insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
        entry.insert("original-expiration".into(), text("1000"));
        let deaths = AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(entry)]));
        let mut table = FieldTable::default();
        table.insert(HEADER.into(), deaths);
        let headers = incoming_headers(&BasicProperties::default().with_headers(table));
        let expected = Death {
            queue: "grün".to_owned(),
            exchange: "ex \"quoted\"".to_owned(),
            reason: DeathReason::DeliveryLimit,
            count: 3,
            routing_keys: vec!["a.b".to_owned(), String::new()],
            time: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1_700_000_000)),
        };
        assert_eq!(XDeath::read(&headers).unwrap(), XDeath(vec![expected]));
    }

    #[test]
    fn unknown_reasons_and_the_order_are_kept() {
        let text = r#"[{"queue":"b","reason":"bored"},{"queue":"a","reason":"maxlen","time":null}]"#;
        let deaths = read(text).unwrap().0;
        assert_eq!(deaths[0].reason, DeathReason::Other("bored".to_owned()));
        assert_eq!((deaths[0].count, deaths[0].time), (1, None));
        assert_eq!((deaths[1].queue.as_str(), &deaths[1].reason), ("a", &DeathReason::MaxLen));
    }

    #[test]
    fn missing_header_is_empty_and_a_bad_one_undecodable() {
        assert_eq!(XDeath::read(&Headers::new()).unwrap(), XDeath::default());
        for text in
            ["", "7", "{}", "[7]", r#"[{"queue":"a"}]"#, r#"[{"queue":"a","reason":"expired","count":-1}]"#]
        {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), cap_adapter::HandlerErrorKind::Undecodable, "{text}");
            assert!(error.to_string().contains("x-death"), "{error}");
        }
    }
}
