//! Error texts as they are stored and logged: bounded, on one line, and without message contents.
//!
//! [`error_text`] processes every error before it is stored or logged. An error text may contain anything, since a
//! sender's bytes get into it: a megabyte, a line break that forges a log line, an escape sequence that controls the
//! terminal of its reader.

use std::error::Error;
use std::fmt::{self, Write};

/// The largest error text that is stored or logged, in bytes.
pub const LONGEST_ERROR: usize = 4096;

/// The end of a truncated text.
const CUT: &str = "…";

/// Makes an error text safe to store, log and print to a terminal: at most [`LONGEST_ERROR`] bytes, truncated between
/// two characters, with control characters, line separators and bidirectional formatting characters escaped.
///
/// Applying it again changes nothing.
///
/// ```
/// use cap_core::error::error_text;
///
/// assert_eq!(error_text("no \x1b[2Jservice\n"), r"no \u{1b}[2Jservice\n");
/// assert!(error_text("x".repeat(10_000_000)).len() <= 4096);
/// ```
#[must_use]
pub fn error_text(error: impl fmt::Display) -> String {
    let mut bounded = Bounded::default();
    // Neither fails: `Bounded` accepts everything and drops the excess.
    let _ = write!(bounded, "{error}");
    bounded.finish()
}

/// Takes a text of any length and keeps its beginning.
#[derive(Default)]
struct Bounded {
    text: String,
    /// Where the text can be cut so that there is room for [`CUT`].
    cut: usize,
    full: bool,
}

impl Bounded {
    fn push(&mut self, unit: &str) {
        if self.full || self.text.len() + unit.len() > LONGEST_ERROR {
            self.full = true;
            return;
        }
        self.text.push_str(unit);
        if self.text.len() + CUT.len() <= LONGEST_ERROR {
            self.cut = self.text.len();
        }
    }

    fn finish(mut self) -> String {
        if self.full {
            self.text.truncate(self.cut);
            self.text.push_str(CUT);
        }
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for character in part.chars() {
            if self.full {
                break;
            }
            if is_unsafe(character) {
                let mut escaped = String::new();
                escaped.extend(character.escape_default());
                self.push(&escaped);
            } else {
                self.push(character.encode_utf8(&mut [0; 4]));
            }
        }
        Ok(())
    }
}

/// Whether a terminal or a log viewer may interpret a character as a control sequence.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// An error chain as one line: each cause after a colon, unless the text before it already contains it. Bounded and
/// escaped by [`error_text`].
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    chain_of(error, |error| error_text(error))
}

/// Like [`error_chain`], without the message contents that errors of serde quote: see [`json_error_text`].
pub(crate) fn error_chain_without_payload(error: &(dyn Error + 'static)) -> String {
    let quoting: Vec<&serde_json::Error> = causes(error).filter_map(|cause| cause.downcast_ref()).collect();
    chain_of(error, |error| {
        let text = error.to_string();
        let mut hidden = text.clone();
        for json in &quoting {
            hidden = hidden.replace(&json.to_string(), &json_error_text(json));
        }
        // One that no cause of its own type stands for may be known by its words.
        error_text(if hidden == text { without_excerpts(&text) } else { hidden })
    })
}

fn chain_of(error: &(dyn Error + 'static), text_of: impl Fn(&(dyn Error + 'static)) -> String) -> String {
    let mut text = text_of(error);
    for cause in causes(error).skip(1) {
        let part = text_of(cause);
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        if text.len() > LONGEST_ERROR {
            break;
        }
    }
    error_text(text)
}

/// The error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let next = |error: &&'a (dyn Error + 'static)| -> Option<&'a (dyn Error + 'static)> { (*error).source() };
    std::iter::successors(Some(error), next)
}

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
fn without_excerpts(text: &str) -> String {
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

    #[test]
    fn control_characters_are_escaped_and_other_text_stays() {
        // Issue 9, rows 5 and 12.
        for (text, expected) in [
            ("plain, with \u{fc}mlaut and \u{1f600}", "plain, with \u{fc}mlaut and \u{1f600}"),
            ("a\r\n2026 ERROR forged", r"a\r\n2026 ERROR forged"),
            ("\u{1b}]0;title\u{7}\u{9b}31m\0\u{7f}", r"\u{1b}]0;title\u{7}\u{9b}31m\u{0}\u{7f}"),
            ("\u{202e}evil\u{2028}", r"\u{202e}evil\u{2028}"),
        ] {
            assert_eq!(error_text(text), expected);
            assert_eq!(error_text(error_text(text)), expected, "a second time changes nothing");
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        for unit in ["x", "\u{fc}", "\u{20ac}", "\u{1f600}", "\u{1b}", "\n"] {
            for before in 0..8 {
                let text = "y".repeat(before) + &unit.repeat(1_000_000 / unit.len());
                let cut = error_text(&text);
                assert!(cut.len() <= LONGEST_ERROR && cut.len() > LONGEST_ERROR - 16, "{}", cut.len());
                assert!(cut.ends_with(CUT));
                assert_eq!(error_text(&cut), cut);
            }
        }
        let longest = "x".repeat(LONGEST_ERROR);
        assert_eq!(error_text(&longest), longest);
    }

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
