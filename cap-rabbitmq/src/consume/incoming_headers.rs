//! Headers of every AMQP type, and the properties of a delivery, as text.

use std::borrow::Cow;

use cap_adapter::message::Headers;
use cap_adapter::message::headers::names;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldTable, ShortString};
use serde_json::Value;

use crate::delay::delay_queue::delays_for;
use crate::driver_fixes::sanitize::MAX_DEPTH;

/// Stands for what nests too deep to be shown.
const DEEPER: &str = "…";

/// The headers of a delivery. Text stays text, void becomes null; numbers and booleans are written as .NET CAP reads
/// them (`5`, `True`), tables and arrays as JSON.
pub(crate) fn incoming_headers(properties: &BasicProperties) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in properties.headers().iter().flatten() {
        let name = name.as_str();
        let name = names::known(name).map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed);
        headers.set(name, text(value));
    }
    headers
}

/// The other properties of a delivery, by their names in the protocol, with the exchange it came through.
pub(crate) fn incoming_properties(properties: &BasicProperties, exchange: &ShortString) -> Headers {
    let texts = [
        ("message-id", properties.message_id()),
        ("correlation-id", properties.correlation_id()),
        ("content-type", properties.content_type()),
        ("content-encoding", properties.content_encoding()),
        ("type", properties.kind()),
        ("app-id", properties.app_id()),
        ("reply-to", properties.reply_to()),
        ("user-id", properties.user_id()),
        ("expiration", properties.expiration()),
    ];
    let numbers = [
        ("timestamp", *properties.timestamp()),
        ("priority", properties.priority().map(u64::from)),
        ("delivery-mode", properties.delivery_mode().map(u64::from)),
    ];
    let mut found = Headers::new();
    for (name, value) in texts {
        if let Some(value) = value {
            found.insert(name, value.as_str());
        }
    }
    for (name, value) in numbers {
        if let Some(value) = value {
            found.insert(name, value.to_string());
        }
    }
    found.insert("exchange", exchange.as_str());
    found
}

/// Whether a message comes from a delay for this very group: its latest death was to expire in such a queue.
pub(crate) fn was_delayed(properties: &BasicProperties, group: &str) -> bool {
    let headers = properties.headers().as_ref();
    let Some(AMQPValue::FieldArray(deaths)) = headers.and_then(|headers| headers.inner().get("x-death"))
    else {
        return false;
    };
    let Some(AMQPValue::FieldTable(latest)) = deaths.as_slice().first() else { return false };
    let field = |name: &str| latest.inner().get(name).and_then(text);
    field("reason").is_some_and(|reason| reason == "expired")
        && field("queue").is_some_and(|queue| delays_for(group, &queue))
}

fn text(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::Void => return None,
        AMQPValue::LongString(text) => lossy(text.as_bytes()),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::ByteArray(bytes) => lossy(bytes.as_slice()),
        AMQPValue::Boolean(true) => "True".to_owned(),
        AMQPValue::Boolean(false) => "False".to_owned(),
        AMQPValue::ShortShortInt(number) => number.to_string(),
        AMQPValue::ShortShortUInt(number) => number.to_string(),
        AMQPValue::ShortInt(number) => number.to_string(),
        AMQPValue::ShortUInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongUInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Timestamp(seconds) => seconds.to_string(),
        AMQPValue::Float(number) => number.to_string(),
        AMQPValue::Double(number) => number.to_string(),
        AMQPValue::DecimalValue(number) => decimal(*number),
        AMQPValue::FieldTable(_) | AMQPValue::FieldArray(_) => json(value, 1).to_string(),
    })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A decimal is a whole number and how many of its digits stand behind the point.
fn decimal(number: DecimalValue) -> String {
    let scale = usize::from(number.scale);
    if scale == 0 {
        return number.value.to_string();
    }
    let digits = format!("{:0>width$}", number.value, width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{whole}.{fraction}")
}

/// A nested value. What lies deeper than [`MAX_DEPTH`] is left out, so that the recursion ends.
fn json(value: &AMQPValue, depth: usize) -> Value {
    match value {
        AMQPValue::FieldTable(_) | AMQPValue::FieldArray(_) | AMQPValue::ByteArray(_)
            if depth > MAX_DEPTH =>
        {
            DEEPER.into()
        }
        AMQPValue::FieldTable(table) => json_table(table, depth),
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(|value| json(value, depth + 1)).collect(),
        AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(truth) => (*truth).into(),
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => (*number).into(),
        AMQPValue::Timestamp(seconds) => (*seconds).into(),
        AMQPValue::Float(number) => (*number).into(),
        AMQPValue::Double(number) => (*number).into(),
        AMQPValue::LongString(_)
        | AMQPValue::ShortString(_)
        | AMQPValue::ByteArray(_)
        | AMQPValue::DecimalValue(_) => text(value).into(),
    }
}

fn json_table(table: &FieldTable, depth: usize) -> Value {
    table.inner().iter().map(|(name, value)| (name.to_string(), json(value, depth + 1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::FieldArray;

    #[track_caller]
    fn check(value: &AMQPValue, expected: Option<&str>) {
        assert_eq!(text(value).as_deref(), expected, "{value:?}");
    }

    #[test]
    fn every_plain_type_becomes_text() {
        check(&AMQPValue::Void, None);
        check(&AMQPValue::LongString("grün".into()), Some("grün"));
        check(&AMQPValue::LongString(vec![b'a', 0xff].into()), Some("a\u{fffd}"));
        check(&AMQPValue::LongString("".into()), Some(""));
        check(&AMQPValue::ByteArray(vec![b'b', 0xfe].into()), Some("b\u{fffd}"));
        check(&AMQPValue::Boolean(true), Some("True"));
        check(&AMQPValue::Boolean(false), Some("False"));
        check(&AMQPValue::ShortShortInt(-5), Some("-5"));
        check(&AMQPValue::ShortShortUInt(255), Some("255"));
        check(&AMQPValue::ShortInt(i16::MIN), Some("-32768"));
        check(&AMQPValue::ShortUInt(u16::MAX), Some("65535"));
        check(&AMQPValue::LongInt(5), Some("5"));
        check(&AMQPValue::LongUInt(u32::MAX), Some("4294967295"));
        check(&AMQPValue::LongLongInt(i64::MIN), Some("-9223372036854775808"));
        check(&AMQPValue::Timestamp(1_700_000_000), Some("1700000000"));
        check(&AMQPValue::Float(1.5), Some("1.5"));
        check(&AMQPValue::Double(-0.25), Some("-0.25"));
    }

    #[test]
    fn decimals_keep_their_point() {
        for (scale, value, expected) in
            [(0, 7, "7"), (2, 1234, "12.34"), (2, 5, "0.05"), (4, 0, "0.0000"), (1, 10, "1.0")]
        {
            assert_eq!(decimal(DecimalValue { scale, value }), expected);
        }
        assert_eq!(decimal(DecimalValue { scale: 255, value: 1 }).len(), 257);
    }

    #[test]
    fn tables_and_arrays_become_json() {
        let mut table = FieldTable::default();
        table.insert("n".into(), AMQPValue::LongInt(1));
        table.insert("t".into(), AMQPValue::LongString("x\"y".into()));
        table.insert("nan".into(), AMQPValue::Double(f64::NAN));
        let array = AMQPValue::FieldArray(FieldArray::from(vec![
            AMQPValue::FieldTable(table),
            AMQPValue::Void,
            AMQPValue::Boolean(true),
        ]));
        check(&array, Some(r#"[{"n":1,"nan":null,"t":"x\"y"},null,true]"#));
        check(&AMQPValue::FieldTable(FieldTable::default()), Some("{}"));
    }

    #[test]
    fn values_that_nest_too_deep_are_left_out() {
        let nested = |levels: usize| {
            (0..levels).fold(AMQPValue::Void, |inner, _| AMQPValue::FieldArray(FieldArray::from(vec![inner])))
        };
        let most = text(&nested(MAX_DEPTH)).unwrap();
        assert_eq!(most, format!("{}null{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)));
        let deeper = text(&nested(MAX_DEPTH + 1)).unwrap();
        assert_eq!(deeper, format!("{}\"…\"{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)));
    }

    #[test]
    fn properties_have_their_protocol_names() {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_type("order".into())
            .with_timestamp(7)
            .with_priority(3)
            .with_delivery_mode(2);
        let found = incoming_properties(&properties, &"ex".into());
        let found: Vec<_> = found.iter().collect();
        assert_eq!(
            found,
            [
                ("content-type", Some("application/json")),
                ("type", Some("order")),
                ("timestamp", Some("7")),
                ("priority", Some("3")),
                ("delivery-mode", Some("2")),
                ("exchange", Some("ex")),
            ]
        );
    }
}
