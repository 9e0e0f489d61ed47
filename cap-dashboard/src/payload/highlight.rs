//! A JSON text in pieces with a kind each, for a page to color. The page escapes them as any other text.

use super::json_text::{Lexeme, lexemes};
use super::masks::MASK;

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The class of the page's style: `key`, `string`, `number`, `literal`, `masked`, or empty.
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

/// The pieces of a JSON text, with the space between them.
pub(crate) fn pieces(json: &str) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    let mut at = 0;
    for lexeme in lexemes(json) {
        let text = lexeme.as_str();
        let Some(start) = json[at..].find(text).map(|found| at + found) else { break };
        push(&mut all, "", &json[at..start]);
        at = start + text.len();
        let kind = match lexeme {
            Lexeme::Text(text) if text.trim_matches('"') == MASK => "masked",
            Lexeme::Text(_) if json[at..].trim_start().starts_with(':') => "key",
            Lexeme::Text(_) => "string",
            Lexeme::Scalar("true" | "false" | "null") => "literal",
            Lexeme::Scalar(_) => "number",
            _ => "",
        };
        push(&mut all, kind, text);
    }
    push(&mut all, "", &json[at..]);
    all
}

fn push(all: &mut Vec<Piece>, kind: &'static str, text: &str) {
    match all.last_mut() {
        _ if text.is_empty() => {}
        Some(last) if last.kind == kind => last.text.push_str(text),
        _ => all.push(Piece { kind, text: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole_text() {
        let json = "{\n  \"a\": [1, true],\n  \"b\": \"<b>\"\n}";
        let all = pieces(json);
        assert_eq!(all.iter().map(|piece| piece.text.as_str()).collect::<String>(), json);
        let kinds: Vec<_> = all.iter().map(|piece| piece.kind).filter(|kind| !kind.is_empty()).collect();
        assert_eq!(kinds, ["key", "number", "literal", "key", "string"]);
    }
}
