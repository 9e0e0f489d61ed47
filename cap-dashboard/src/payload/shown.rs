//! A stored message as a user may see it.

use cap_core::message::{Headers, Message};
use cap_core::monitor::Row;

use super::json_text::is_json;
use super::masks::{MASK, Masks};

/// A payload as a user may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// No body: a null payload.
    Empty,
    /// JSON as it was written, except for masks.
    Json(String),
    /// Other text.
    Text(String),
    /// Neither JSON nor text.
    Binary(Vec<u8>),
    /// Hidden as a whole.
    Hidden,
}

/// Headers, payload and error of a message as a user may see them. Everything that shows a message goes through this.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) headers: Vec<(String, Option<String>)>,
    pub(crate) body: Body,
    pub(crate) error: Option<String>,
    /// Whether something of the payload is masked.
    pub(crate) is_masked: bool,
}

impl Shown {
    /// The message of a row. `unmasked` is for users who may see everything.
    pub(crate) fn of(row: &Row, masks: &Masks, unmasked: bool) -> Self {
        let headers = row.message.headers.iter().map(|(name, value)| {
            let is_hidden = !unmasked && masks.hides_header(name);
            (name.to_owned(), value.map(|value| if is_hidden { MASK } else { value }.to_owned()))
        });
        let (body, is_masked) = Body::of(&row.message.body, Some(&row.name), masks, unmasked);
        let error = row.last_error.as_deref().map(|error| Self::error(error, masks, unmasked).to_owned());
        Self { headers: headers.collect(), body, error, is_masked }
    }

    /// The message as CAP's column `Content` has it, with masks.
    pub(crate) fn content(&self) -> String {
        let mut headers = Headers::new();
        for (name, value) in &self.headers {
            headers.set(name.clone(), value.clone());
        }
        let body = match &self.body {
            Body::Empty => Vec::new(),
            Body::Json(text) | Body::Text(text) => text.clone().into_bytes(),
            Body::Binary(bytes) => bytes.clone(),
            Body::Hidden => format!("\"{MASK}\"").into_bytes(),
        };
        Message::new(headers, body).content()
    }

    /// An error text as a user may see it.
    pub(crate) fn error<'a>(error: &'a str, masks: &Masks, unmasked: bool) -> &'a str {
        if !unmasked && masks.hides_errors() { MASK } else { error }
    }
}

impl Body {
    /// A payload as a user may see it, and whether something of it is masked. Without a topic it is hidden if those of any
    /// topic are.
    pub(crate) fn of(bytes: &[u8], topic: Option<&str>, masks: &Masks, unmasked: bool) -> (Self, bool) {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        if !unmasked && topic.map_or_else(|| masks.hides_topics(), |topic| masks.hides_topic(topic)) {
            return (Self::Hidden, true);
        }
        if bytes.is_empty() {
            return (Self::Empty, false);
        }
        let Ok(text) = std::str::from_utf8(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)) else {
            let hidden = !unmasked && masks.hides_fields();
            return if hidden { (Self::Hidden, true) } else { (Self::Binary(bytes.to_vec()), false) };
        };
        if !is_json(text) {
            let hidden = !unmasked && masks.hides_fields();
            return if hidden { (Self::Hidden, true) } else { (Self::Text(text.to_owned()), false) };
        }
        if unmasked {
            return (Self::Json(text.to_owned()), false);
        }
        let masked = masks.masked(text);
        let is_masked = matches!(masked, std::borrow::Cow::Owned(_));
        (Self::Json(masked.into_owned()), is_masked)
    }
}
