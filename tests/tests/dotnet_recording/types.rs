//! Every line of the table of types in `docs/dotnet.md`, through a handler that takes the Rust type of that line.

use std::collections::HashMap;
use std::fmt::Debug;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, FixedOffset, NaiveDateTime, Utc};
use rust_decimal::Decimal;
use serde::Deserializer;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::value::RawValue;
use serde_repr::Deserialize_repr;

use super::*;

/// A .NET `decimal`: read from the digits as they were sent.
#[derive(Debug, Clone, PartialEq)]
struct Exact(Decimal);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let digits = Box::<RawValue>::deserialize(from)?;
        Decimal::from_str_exact(digits.get()).map(Self).map_err(D::Error::custom)
    }
}

/// A .NET `byte[]`.
#[derive(Debug, Clone, PartialEq)]
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize_repr)]
#[repr(i32)]
enum DayOfWeek {
    Thursday = 4,
    Friday = 5,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Order {
    id: i32,
    text: String,
    amount: Exact,
    when: DateTime<Utc>,
    flag: bool,
    tags: Vec<String>,
    maybe: Option<String>,
}

fn order(id: i32, amount: &str, flag: bool) -> Order {
    Order {
        id,
        text: format!("Grüße <b>&\"'+ 🦀 {id}"),
        amount: Exact(Decimal::from_str(amount).unwrap()),
        when: "2026-11-26T12:34:56Z".parse().unwrap(),
        flag,
        tags: vec!["a".to_owned(), "ü".to_owned()],
        maybe: None,
    }
}

/// A bus in memory that gets one body on one topic, and parks it unless it is decoded as `expected`.
async fn decodes<T>(body: &str, expected: T)
where
    T: DeserializeOwned + Debug + Clone + PartialEq + Send + Sync + 'static,
{
    let handler = {
        let expected = expected.clone();
        move |value: T| {
            let result =
                if value == expected { Ok(()) } else { Err(HandlerError::permanent(format!("{value:?}"))) };
            std::future::ready(result)
        }
    };
    let cap = Cap::builder()
        .handlers(Handlers::none())
        .storage(MemoryStorage::new())
        .transport(MemoryTransport::new())
        .subscribe("type", handler)
        .start()
        .await
        .unwrap();
    cap.publish_bytes("type", body.as_bytes().to_vec()).await.unwrap();
    let row = until("the message ending", async || {
        let rows = cap.messages().received().list().await.unwrap();
        rows.into_iter().find(|row| matches!(row.status, Status::Succeeded | Status::Failed))
    })
    .await;
    assert_eq!(row.last_error, None, "{body} as {expected:?}");
    cap.shutdown().await.unwrap();
}

/// The recorded body of the topic `interop.wire.<name>`.
async fn recorded_as<T>(name: &str, expected: T)
where
    T: DeserializeOwned + Debug + Clone + PartialEq + Send + Sync + 'static,
{
    decodes(&recorded(&format!("interop.wire.{name}")).body, expected).await;
}

#[tokio::test]
async fn integers_keep_64_bits() {
    recorded_as("int", 42_i32).await;
    recorded_as("long", i64::MAX).await;
}

#[tokio::test]
async fn decimal_keeps_29_digits() {
    recorded_as("decimal", Exact(Decimal::MAX)).await;
    recorded_as("smalldecimal", Exact(Decimal::new(1, 28))).await;
}

#[tokio::test]
async fn double_and_bool_are_exact() {
    recorded_as("double", 0.1_f64 + 0.2_f64).await;
    recorded_as("bool", true).await;
}

#[tokio::test]
async fn string_differs_from_empty_and_null() {
    recorded_as("string", "text \"quoted\" ü".to_owned()).await;
    recorded_as("emptystring", String::new()).await;
    recorded_as("emptystring", Some(String::new())).await;
    recorded_as("null", None::<String>).await;
    recorded_as("null", ()).await;
}

#[tokio::test]
async fn guid_and_bytes_are_decoded() {
    recorded_as("guid", uuid::uuid!("6f9619ff-8b86-d011-b42d-00c04fc964ff")).await;
    recorded_as("bytes", Base64(vec![0, 1, 2, 250, 255])).await;
}

#[tokio::test]
async fn three_kinds_of_datetime_are_decoded() {
    let local = DateTime::<FixedOffset>::from_str("2026-11-26T12:34:56.789+00:00").unwrap();
    recorded_as("datetime", local).await;
    // The other two kinds as .NET writes them, with all of its seven digits.
    let utc = DateTime::<Utc>::from_str("2026-11-26T12:34:56.1234567Z").unwrap();
    assert_eq!(utc.timestamp_subsec_nanos(), 123_456_700);
    decodes("\"2026-11-26T12:34:56.1234567Z\"", utc).await;
    let unspecified = NaiveDateTime::from_str("2026-11-26T12:34:56.1234567").unwrap();
    decodes("\"2026-11-26T12:34:56.1234567\"", unspecified).await;
}

#[tokio::test]
async fn datetimeoffset_and_timespan_are_decoded() {
    let offset = DateTime::<FixedOffset>::from_str("2026-11-26T12:34:56+08:00").unwrap();
    recorded_as("offset", offset).await;
    recorded_as("timespan", "01:30:30".to_owned()).await;
}

#[tokio::test]
async fn enum_is_a_number() {
    recorded_as("enum", DayOfWeek::Friday).await;
}

#[tokio::test]
async fn lists_and_dictionaries_are_decoded() {
    recorded_as("list", vec![1, 2, 3]).await;
    recorded_as("generic", vec![order(1, "13.5", false)]).await;
    let dictionary: HashMap<String, Option<Value>> = [
        ("a b".to_owned(), Some(1.into())),
        ("ü".to_owned(), None),
        ("nested".to_owned(), Some(serde_json::json!({ "X": 1 }))),
    ]
    .into();
    recorded_as("dictionary", dictionary).await;
}

#[tokio::test]
async fn object_in_pascal_case_is_decoded() {
    recorded_as("order", order(7, "19.5", false)).await;
    recorded_as("delayed", order(10, "22.5", true)).await;
}
