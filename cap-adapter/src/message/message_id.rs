//! Message ids as fields of a payload.

/// Serializes a [`MessageId`](super::MessageId) as a JSON string, and reads it from a string or a number: for fields of
/// a payload, with `#[serde(with = "..")]`.
///
/// As a string, an id of 64 bits survives JavaScript, whose numbers have 53. `MessageId` itself implements `Serialize` in
/// the same way, but not `Deserialize`: every type that does is a payload, and `MessageId` as a handler's argument is the
/// id of the received message.
///
/// ```
/// use cap_core::prelude::*;
///
/// #[derive(Serialize, Deserialize)]
/// struct Refund {
///     #[serde(with = "cap_core::message_id::serde")]
///     of_payment: MessageId,
///     #[serde(with = "cap_core::message_id::serde::option", default)]
///     of_order: Option<MessageId>,
/// }
///
/// let refund: Refund = serde_json::from_str(r#"{"of_payment": 7301444403200897024}"#)?;
/// assert_eq!(refund.of_payment.as_str(), "7301444403200897024");
/// assert_eq!(serde_json::to_string(&refund)?, r#"{"of_payment":"7301444403200897024","of_order":null}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub mod serde {
    use std::fmt;

    use ::serde::de::{self, Deserializer, Visitor};
    use ::serde::{Serialize, Serializer};

    use crate::message::id::MessageId;

    /// Serializes an id as a string.
    ///
    /// # Errors
    ///
    /// When the serializer fails.
    pub fn serialize<S: Serializer>(id: &MessageId, serializer: S) -> Result<S::Ok, S::Error> {
        id.serialize(serializer)
    }

    /// Reads an id from a string, unchanged, or from a whole number.
    ///
    /// # Errors
    ///
    /// When it is neither.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MessageId, D::Error> {
        deserializer.deserialize_any(Id)
    }

    struct Id;

    impl Visitor<'_> for Id {
        type Value = MessageId;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a message id as a string or a whole number")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<MessageId, E> {
            Ok(MessageId::new(text))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<MessageId, E> {
            Ok(MessageId::from(number))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<MessageId, E> {
            Ok(MessageId::new(number.to_string()))
        }
    }

    /// The same for fields of the type `Option<MessageId>`: `None` is null. Add `default` for a field that may be absent.
    pub mod option {
        use std::fmt;

        use ::serde::de::{self, Deserializer, Visitor};
        use ::serde::{Serialize, Serializer};

        use crate::message::id::MessageId;

        /// Serializes an id as a string, or `None` as null.
        ///
        /// # Errors
        ///
        /// When the serializer fails.
        pub fn serialize<S: Serializer>(id: &Option<MessageId>, serializer: S) -> Result<S::Ok, S::Error> {
            id.serialize(serializer)
        }

        /// Reads an id from a string or a whole number, and `None` from null.
        ///
        /// # Errors
        ///
        /// When it is none of them.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<MessageId>, D::Error> {
            deserializer.deserialize_option(Optional)
        }

        struct Optional;

        impl<'de> Visitor<'de> for Optional {
            type Value = Option<MessageId>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message id as a string or a whole number, or null")
            }

            fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
                super::deserialize(inner).map(Some)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::message::MessageId;

    #[derive(Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
    struct Fields {
        #[serde(with = "super::serde")]
        id: MessageId,
        #[serde(with = "super::serde::option", default)]
        other: Option<MessageId>,
    }

    fn fields(id: &str, other: Option<&str>) -> Fields {
        Fields { id: MessageId::new(id), other: other.map(MessageId::new) }
    }

    #[test]
    fn strings_and_numbers_are_read_without_loss() {
        let largest = "18446744073709551615";
        for (json, expected) in [
            (r#"{"id": "a-guid"}"#, fields("a-guid", None)),
            (r#"{"id": 9223372036854775807, "other": null}"#, fields("9223372036854775807", None)),
            (r#"{"id": 18446744073709551615, "other": 7}"#, fields(largest, Some("7"))),
            (r#"{"id": -1, "other": "x"}"#, fields("-1", Some("x"))),
        ] {
            assert_eq!(serde_json::from_str::<Fields>(json).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn other_values_are_rejected_with_what_is_expected() {
        for json in [r#"{"id": 1.5}"#, r#"{"id": null}"#, r#"{"id": []}"#, r#"{"id": "1", "other": true}"#] {
            let error = serde_json::from_str::<Fields>(json).unwrap_err().to_string();
            assert!(error.contains("a message id as a string or a whole number"), "{json}: {error}");
        }
    }

    #[test]
    fn ids_are_written_as_strings() {
        let json = serde_json::to_string(&fields("9223372036854775807", Some("7"))).unwrap();
        assert_eq!(json, r#"{"id":"9223372036854775807","other":"7"}"#);
        assert_eq!(serde_json::to_string(&MessageId::from(7)).unwrap(), r#""7""#);
    }
}
