//! Headers, bodies and ids.

use cap_core::message::{Headers, Message, MessageId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{halves, text};

/// The envelope as a reader of CAP's tables takes it apart.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<'a> {
    headers: Headers,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// Headers as a store keeps them: what can be read is written again as it means the same.
pub fn message_headers(data: &[u8]) {
    let Ok(read) = Headers::from_json(&text(data)) else { return };
    let again = Headers::from_json(&read.to_json()).ok();
    assert_eq!(again.as_ref(), Some(&read), "headers survive being stored");
    let order = |headers: &Headers| headers.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(again.map(|again| order(&again)), Some(order(&read)), "and so does their order");
    assert!(read.iter().all(|(name, value)| read.get(name) == value && read.contains(name)));
}

/// Any headers and any body: they are shown as an envelope that can be read again.
pub fn content(data: &[u8]) {
    let (headers, body) = halves(data);
    let headers = Headers::from_json(&text(headers)).unwrap_or_default();
    let message = Message::new(headers, body.to_vec());
    let content = message.content();
    let envelope: Result<Envelope<'_>, _> = serde_json::from_str(&content);
    let shown = envelope.as_ref().map(|envelope| &envelope.headers);
    assert_eq!(shown.ok(), Some(&message.headers), "the envelope {content} can be read");
    if let (Ok(envelope), Ok(body)) = (&envelope, serde_json::from_slice::<&RawValue>(body)) {
        assert_eq!(envelope.value.get(), body.get(), "a body that is JSON stands in it as it is");
    }
    assert!(message.size() >= body.len());
    // Whether it can be read as a payload matters less than that it is decided.
    let _ = message.payload::<serde_json::Value>();
    let _ = (message.id(), message.name(), message.message_id());
}

/// Any text as a message id.
pub fn message_id(data: &[u8]) {
    let text = text(data);
    let id = MessageId::new(text.as_str());
    assert_eq!(id.as_str(), text);
    assert_eq!(id.to_string(), text);
    if let Some(number) = id.as_number() {
        assert!(number > 0);
        assert_eq!(MessageId::from(number).as_number(), Some(number));
    }
    assert!(format!("{id:?}").contains(&text));
}
