//! Messages of headers and a body, and CAP's envelope of both as one JSON text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::headers::{Headers, names};
use super::id::MessageId;

/// A message of headers and a body. The body is what is sent: usually JSON, empty for a null payload, and any bytes
/// from a foreign sender.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The headers, in order.
    pub headers: Headers,
    /// The payload as it was received; never rewritten, so that nothing is lost.
    pub body: Bytes,
}

impl Message {
    /// Creates a message from its parts.
    #[must_use]
    pub fn new(headers: Headers, body: impl Into<Bytes>) -> Self {
        Self { headers, body: body.into() }
    }

    /// The message id set by the sender, if there is one that is not empty.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.headers.get(names::MESSAGE_ID).filter(|id| !id.is_empty())
    }

    /// Like [`id`](Self::id), as a [`MessageId`].
    #[must_use]
    pub fn message_id(&self) -> Option<MessageId> {
        self.id().map(MessageId::new)
    }

    /// The topic, if the message has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.headers.get(names::MESSAGE_NAME).filter(|name| !name.is_empty())
    }

    /// The size of headers and body in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.headers.size() + self.body.len()
    }

    /// Decodes the payload. An empty body is decoded as JSON null. A byte order mark before the JSON is ignored,
    /// since some senders write one.
    ///
    /// # Errors
    ///
    /// When the body is not JSON of that type.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(match self.json() {
            b"" => b"null",
            json => json,
        })
    }

    /// The body without the byte order mark that some senders write before it.
    fn json(&self) -> &[u8] {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        self.body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.body)
    }

    /// Formats the message like CAP's `Content` column: `{"Headers":{..},"Value":..}`.
    ///
    /// A JSON body is included unchanged and an empty one is null; any other body becomes the text
    /// `data:<type>;base64,<body>`, as CAP shows what it cannot decode.
    #[must_use]
    pub fn content(&self) -> String {
        let value = if self.json().is_empty() {
            "null".to_owned()
        } else if let Ok(raw) = serde_json::from_slice::<&RawValue>(self.json()) {
            raw.get().to_owned()
        } else {
            let kind = self.headers.get(names::MESSAGE_TYPE).unwrap_or("UnknownType");
            let uri = format!("data:{kind};base64,{}", STANDARD.encode(&self.body));
            serde_json::Value::String(uri).to_string()
        };
        format!(r#"{{"Headers":{},"Value":{value}}}"#, self.headers.to_json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_body_is_null() {
        let message = Message::default();
        assert_eq!(message.payload::<Option<i32>>().unwrap(), None);
        assert!(message.payload::<i32>().is_err());
        assert_eq!(message.content(), r#"{"Headers":{},"Value":null}"#);
    }

    /// Issue 8, row 16.
    #[test]
    fn a_byte_order_mark_before_json_is_passed_over() {
        let message = |body: &[u8]| Message::new(Headers::new(), body.to_vec());
        assert_eq!(message(b"\xef\xbb\xbf[1,2]").payload::<Vec<i32>>().unwrap(), [1, 2]);
        assert_eq!(message(b"\xef\xbb\xbf \"\xef\xbb\xbf\"").payload::<String>().unwrap(), "\u{feff}");
        assert_eq!(message(b"\xef\xbb\xbf").payload::<Option<i32>>().unwrap(), None);
        assert_eq!(message(b"\xef\xbb\xbf7").content(), r#"{"Headers":{},"Value":7}"#);
        // Only one, only at the start, and only of UTF-8.
        for body in [
            &b"\xef\xbb\xbf\xef\xbb\xbf1"[..],
            b" \xef\xbb\xbf1",
            b"\xef\xbb1",
            b"\xff\xfe1\x00",
            b"1\xef\xbb\xbf",
        ] {
            assert!(message(body).payload::<i32>().is_err(), "{body:?}");
        }
        let binary = message(b"\xef\xbb\xbf\xff");
        assert_eq!(&binary.body[..], b"\xef\xbb\xbf\xff", "the body itself stays unchanged");
        assert!(binary.content().contains("base64,77u//w=="), "{}", binary.content());
    }

    #[test]
    fn content_is_caps_envelope() {
        let mut headers = Headers::new();
        headers.insert_null(names::CALLBACK_NAME);
        headers.insert(names::MESSAGE_ID, "4901861535869464577");
        let message = Message::new(headers, &br#"{"OrderId":7}"#[..]);
        assert_eq!(
            message.content(),
            r#"{"Headers":{"cap-callback-name":null,"cap-msg-id":"4901861535869464577"},"Value":{"OrderId":7}}"#
        );
    }

    #[test]
    fn an_undecodable_body_becomes_a_data_uri() {
        let headers = [(names::MESSAGE_TYPE, "OrderCreated")].into_iter().collect();
        let message = Message::new(headers, &br#"{"OrderId":"#[..]);
        assert!(
            message.content().ends_with(r#""Value":"data:OrderCreated;base64,eyJPcmRlcklkIjo="}"#),
            "{}",
            message.content()
        );
    }
}
