//! The texts of errors of serde without the input that they quote.

use super::text::error_text;

/// The text of a `serde_json` error without the input that it quotes: `invalid type: string, expected i64 at line 1
/// column 20`. Custom errors of a type ([`serde::de::Error::custom`]) are left out completely, since they may quote
/// anything.
///
/// ```
/// use cap_core::error::json_error_text;
///
/// let error = serde_json::from_str::<i64>("\"4111 1111 1111 1111\"").unwrap_err();
/// assert_eq!(json_error_text(&error), "invalid type: string, expected i64 at line 1 column 21");
/// ```
#[must_use]
pub fn json_error_text(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if !error.is_data() {
        return error_text(text);
    }
    let (said, place) = match last_place(&text) {
        Some(place) => text.split_at(place),
        None => (&*text, ""),
    };
    error_text(reduced(said) + place)
}

/// Replaces a text that cannot be shown without quoting the input.
const OTHER_DATA: &str = "not what its type takes";

/// A text without the input that errors of serde in it quote.
pub(super) fn without_excerpts(text: &str) -> String {
    // The `Debug` form, as it stands in the text of a panic. What may follow it is left out.
    if let (Some(start), Some(end)) = (text.find("Error(\""), text.rfind("\", line: "))
        && let Some((place, _)) = text.get(end..).unwrap_or_default().split_once(')')
        && place.contains(", column: ")
    {
        return format!("{}Error(\"{OTHER_DATA}{place})", &text[..start]);
    }
    if let Some(place) = last_place(text) {
        let (said, place) = text.split_at(place);
        if SYNTAX.iter().any(|syntax| clause(said, syntax).is_some_and(|start| said[start..] == **syntax)) {
            return text.to_owned();
        }
        // Those who name the error behind a colon are quoted, and what serde says of the data is reduced.
        let start = KNOWN.iter().filter_map(|known| clause(said, known)).min().unwrap_or(0);
        let (before, said) = said.split_at(start);
        return format!("{before}{}{place}", reduced(said));
    }
    // Errors of values that are read already have no place.
    match MARKS.iter().filter_map(|mark| text.find(mark)).min() {
        Some(start) => format!("{}{}", &text[..start], reduced(&text[start..])),
        None => text.to_owned(),
    }
}

/// The position of a clause that begins with this text: at the start, or after a colon.
fn clause(text: &str, beginning: &str) -> Option<usize> {
    if text.starts_with(beginning) {
        return Some(0);
    }
    text.find(&format!(": {beginning}")).map(|colon| colon + 2)
}

/// The beginnings of serde's messages.
const KNOWN: [&str; 7] = [
    "invalid type: ",
    "invalid value: ",
    "invalid length ",
    "unknown field `",
    "unknown variant `",
    "missing field `",
    "duplicate field `",
];

/// The beginnings of serde's messages that quote the input.
const MARKS: [&str; 4] = ["invalid type: ", "invalid value: ", "unknown field `", "unknown variant `"];

/// The messages of `serde_json` that quote nothing.
const SYNTAX: &[&str] = &[
    "EOF while parsing a list",
    "EOF while parsing an object",
    "EOF while parsing a string",
    "EOF while parsing a value",
    "expected value",
    "expected ident",
    "trailing characters",
    "trailing comma",
    "key must be a string",
    "recursion limit exceeded",
    "invalid number",
    "number out of range",
    "invalid escape",
    "expected `:`",
    "expected `,` or `]`",
    "expected `,` or `}`",
    "control character (\\u0000-\\u001F) found while parsing a string",
];

/// Where ` at line 1 column 20` stands for the last time, which no quoted input can come after.
fn last_place(text: &str) -> Option<usize> {
    let place = text.rfind(" at line ")?;
    let (line, rest) = text[place..].strip_prefix(" at line ")?.split_once(" column ")?;
    let is_place = line.bytes().all(|byte| byte.is_ascii_digit())
        && rest.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    is_place.then_some(place)
}

/// The serde message at the beginning of a text, without the input that it quotes.
fn reduced(said: &str) -> String {
    for mark in ["missing field `", "duplicate field `"] {
        let name = said.strip_prefix(mark).and_then(|rest| rest.strip_suffix('`'));
        if name.is_some_and(|name| !name.contains('`') && is_plain(name)) {
            return said.to_owned();
        }
    }
    for mark in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = said.strip_prefix(mark) {
            let kind = rest.split(['"', '`', ',', '\\']).next().unwrap_or_default().trim_end();
            let kind =
                if kind.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b' ') { kind } else { "" };
            // Serde puts it behind what it quotes, whatever that says.
            let expected = rest.rfind(", expected ").map(|start| &rest[start..]);
            return format!("{mark}{kind}{}", expected.filter(|text| is_plain(text)).unwrap_or_default());
        }
    }
    if let Some(rest) = said.strip_prefix("invalid length ") {
        let (length, expected) = rest.split_once(", expected ").unwrap_or_default();
        if length.bytes().all(|byte| byte.is_ascii_digit()) && is_plain(expected) {
            return said.to_owned();
        }
    }
    for (mark, name) in [("unknown field `", "unknown field"), ("unknown variant `", "unknown variant")] {
        if let Some(rest) = said.strip_prefix(mark) {
            let known = rest.rfind("`, expected ").max(rest.rfind("`, there are no "));
            let known = known.and_then(|start| rest.get(start + 1..)).filter(|text| is_plain(text));
            return format!("{name}{}", known.unwrap_or_default());
        }
    }
    OTHER_DATA.to_owned()
}

/// Whether a text looks like a type's description of itself.
fn is_plain(text: &str) -> bool {
    text.len() <= 500
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" _`<>'().,:&-/$".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, de};

    use super::*;
    use crate::error::error_chain_without_payload;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only how they are read matters")]
    struct Card {
        number: i64,
        kind: Kind,
        owner: Owner,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        Visa,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    #[derive(Debug)]
    struct Owner;

    impl<'de> Deserialize<'de> for Owner {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            Err(de::Error::custom(format!("nobody is called {text}")))
        }
    }

    #[test]
    fn no_error_of_serde_quotes_the_input() {
        // Issue 9, row 5. Each input holds what must not be told, with the words of serde's own messages about it.
        const SECRET: &str = "4111";
        type Read = fn(&str) -> serde_json::Error;
        let card: Read = |json| serde_json::from_str::<Card>(json).unwrap_err();
        for (json, expected, read) in [
            (r#"{"number":"4111"}"#, "invalid type: string, expected i64", card),
            (r#"{"number":4111.5}"#, "invalid type: floating point, expected i64", card),
            (
                r#"{"number":"x, expected 4111 at line 4111 column 4111"}"#,
                "invalid type: string, expected i64",
                card,
            ),
            (r#"{"number":1,"kind":"4111"}"#, "unknown variant, expected `Visa`", card),
            (r#"{"4111":1}"#, "unknown field, expected one of", card),
            (r#"{"number":1,"kind":"Visa","owner":"4111"}"#, OTHER_DATA, card),
            (r#"{"number":1,"kind":"Visa","owner":"invalid type: 4111, expected 4111"}"#, OTHER_DATA, card),
            (r#"{"number":1,"kind":"Visa","owner":"missing field `4111`"}"#, OTHER_DATA, card),
            (r#"{"a`, expected 4111":1}"#, "unknown field, there are no fields", |json| {
                serde_json::from_str::<Nothing>(json).unwrap_err()
            }),
            (r#"{"4111":1}"#, "invalid", |json| serde_json::from_str::<BTreeMap<u8, u8>>(json).unwrap_err()),
            (r#""4111""#, "invalid type: string, expected u8", |json| {
                serde_json::from_value::<u8>(serde_json::from_str(json).unwrap()).unwrap_err()
            }),
        ] {
            let error = read(json);
            assert!(error.to_string().contains(SECRET) || json.contains("u8"), "{error}");
            let text = json_error_text(&error);
            assert!(text.contains(expected), "{text} for {json}");
            assert!(!text.contains(SECRET), "{text}");
            // The same where the error's type is not known: boxed by another crate, wrapped, or in a panic.
            for text in [
                without_excerpts(&error.to_string()),
                error_chain_without_payload(&Wrapped(error)),
                without_excerpts(&format!("called `Result::unwrap()` on an `Err` value: {:?}", read(json))),
            ] {
                assert!(!text.contains(SECRET), "{text}");
            }
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot look at the card: {0}")]
    struct Wrapped(#[source] serde_json::Error);

    #[test]
    fn what_quotes_nothing_is_told_whole() {
        let card = |json: &str| serde_json::from_str::<Card>(json).unwrap_err();
        assert_eq!(json_error_text(&card(r#"{"number":1}"#)), "missing field `kind` at line 1 column 12");
        assert_eq!(json_error_text(&card("{")), "EOF while parsing an object at line 1 column 1");
        let wrapped = error_chain_without_payload(&Wrapped(card(r#"{"number":"4111"}"#)));
        assert_eq!(
            wrapped,
            "cannot look at the card: invalid type: string, expected i64 at line 1 column 16"
        );
        for text in ["order 4111 is paid already", "expected value at line 1 column 1", "see line 7 column 3"]
        {
            assert_eq!(without_excerpts(text), text);
        }
    }
}
