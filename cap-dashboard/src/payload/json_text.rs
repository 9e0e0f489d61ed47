//! JSON as text. Numbers, escapes and duplicate keys stay as they were written: nothing goes through a float or a map.

use serde_json::value::RawValue;

/// Deeper levels are not indented further, so that a deeply nested text does not grow with the square of its size.
const DEEPEST_INDENT: usize = 40;

/// A part of a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lexeme<'a> {
    /// `{` or `[`.
    Open(&'a str),
    /// `}` or `]`.
    Close(&'a str),
    Comma,
    Colon,
    /// A string with its quotes.
    Text(&'a str),
    /// A number, `true`, `false` or `null`.
    Scalar(&'a str),
}

/// Whether a text is one JSON value.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The parts of a valid JSON text, without the space between them.
pub(crate) fn lexemes(json: &str) -> impl Iterator<Item = Lexeme<'_>> {
    let mut rest = json;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let length = match rest.as_bytes().first()? {
            b'"' => length_of_string(rest),
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            _ => rest.find([' ', '\t', '\n', '\r', ',', ':', ']', '}']).unwrap_or(rest.len()).max(1),
        };
        let (part, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(match part {
            "{" | "[" => Lexeme::Open(part),
            "}" | "]" => Lexeme::Close(part),
            "," => Lexeme::Comma,
            ":" => Lexeme::Colon,
            text if text.starts_with('"') => Lexeme::Text(text),
            scalar => Lexeme::Scalar(scalar),
        })
    })
}

/// The length of the string literal at the start, with its quotes.
fn length_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The text without the space between its parts.
pub(crate) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for lexeme in lexemes(json) {
        out.push_str(lexeme.as_str());
    }
    out
}

/// The text with a line for each member and element.
pub(crate) fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth: usize = 0;
    let mut before = None;
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(DEEPEST_INDENT)));
    };
    for lexeme in lexemes(json) {
        match lexeme {
            Lexeme::Close(_) => {
                depth = depth.saturating_sub(1);
                if !matches!(before, Some(Lexeme::Open(_))) {
                    new_line(&mut out, depth);
                }
            }
            _ if matches!(before, Some(Lexeme::Open(_) | Lexeme::Comma)) => new_line(&mut out, depth),
            _ => {}
        }
        out.push_str(lexeme.as_str());
        match lexeme {
            Lexeme::Open(_) => depth += 1,
            Lexeme::Colon => out.push(' '),
            _ => {}
        }
        before = Some(lexeme);
    }
    out
}

impl<'a> Lexeme<'a> {
    pub(crate) fn as_str(&self) -> &'a str {
        match self {
            Self::Open(text) | Self::Close(text) | Self::Text(text) | Self::Scalar(text) => text,
            Self::Comma => ",",
            Self::Colon => ":",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_escapes_stay_as_they_were_written() {
        let json =
            r#"{"decimal":79228162514264337593543950335.10,"id":9007199254740993,"e":1E+2,"e":"\u0041\"\/"}"#;
        assert_eq!(compact(&pretty(json)), json);
        assert_eq!(pretty(r#"{"a":[1,{}],"b":[]}"#), "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}");
        assert_eq!(pretty(" 1.0 "), "1.0");
    }

    #[test]
    fn deep_nesting_takes_space_in_proportion() {
        let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        assert!(is_json(&deep));
        assert!(pretty(&deep).len() < 40_000 * (2 * DEEPEST_INDENT + 2));
    }
}
