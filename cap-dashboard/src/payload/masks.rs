//! Which parts of messages are hidden from those who may not unmask.

use std::borrow::Cow;

use cap_core::message::TopicPattern;

use super::json_text::{Lexeme, is_json, lexemes};

/// What stands in place of a masked value.
pub(crate) const MASK: &str = "•••";

/// How many JSON texts inside JSON strings are looked into.
const DEEPEST_TEXT: usize = 3;

/// Rules for what is hidden in messages: on pages, in the API, in searches and in error texts alike.
///
/// A user with the right to [unmask](crate::Rights::unmask) sees everything. For others a masked value reads `•••`, a
/// payload with masked values cannot be edited, and a search in payloads finds only what they can see.
///
/// ```
/// use cap_dashboard::Masks;
///
/// let masks = Masks::none()
///     .field("password")
///     .field("card.number")
///     .header("authorization")
///     .payloads_of("salary.#")?;
/// # Ok::<(), cap_dashboard::SetupError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Masks {
    fields: Vec<Vec<String>>,
    headers: Vec<String>,
    topics: Vec<TopicPattern>,
    errors: bool,
}

impl Masks {
    /// Hides nothing. The default.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Hides the values of a JSON member by its name, at any depth and in any case: `password`, or as the end of a path,
    /// `card.number`. `*` stands for one name. Elements of arrays have no name: `items.price` is the price of each item. A
    /// payload that is no JSON is hidden as a whole as soon as there is a rule for a field.
    #[must_use]
    pub fn field(mut self, path: &str) -> Self {
        self.fields.push(path.split('.').map(str::to_lowercase).collect());
        self
    }

    /// Hides the value of a header by its name, in any case.
    #[must_use]
    pub fn header(mut self, name: &str) -> Self {
        self.headers.push(name.to_lowercase());
        self
    }

    /// Hides whole payloads of the topics that match a pattern, as in a subscription: `salary.#`.
    ///
    /// # Errors
    ///
    /// An invalid pattern.
    pub fn payloads_of(mut self, pattern: &str) -> Result<Self, crate::SetupError> {
        let parsed = TopicPattern::parse(pattern);
        self.topics.push(parsed.map_err(|error| crate::SetupError::Mask(error.to_string()))?);
        Ok(self)
    }

    /// Hides error texts, which may quote a payload.
    #[must_use]
    pub fn errors(mut self) -> Self {
        self.errors = true;
        self
    }

    pub(crate) fn hides_errors(&self) -> bool {
        self.errors
    }

    pub(crate) fn hides_header(&self, name: &str) -> bool {
        self.headers.iter().any(|hidden| *hidden == name.to_lowercase())
            || (self.errors && name == cap_core::message::headers::names::EXCEPTION)
    }

    /// Whether the payloads of a topic are hidden as a whole.
    pub(crate) fn hides_topic(&self, topic: &str) -> bool {
        self.topics.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether the payloads of some topic are hidden as a whole.
    pub(crate) fn hides_topics(&self) -> bool {
        !self.topics.is_empty()
    }

    /// Whether anything in a payload is hidden.
    pub(crate) fn hides_fields(&self) -> bool {
        !self.fields.is_empty()
    }

    /// The JSON text with masks. Space between its parts is kept.
    pub(crate) fn masked<'a>(&self, json: &'a str) -> Cow<'a, str> {
        self.masked_within(json, DEEPEST_TEXT)
    }

    fn masked_within<'a>(&self, json: &'a str, deepest: usize) -> Cow<'a, str> {
        if self.fields.is_empty() {
            return Cow::Borrowed(json);
        }
        let mut walk = Walk { masks: self, deepest, names: Vec::new(), hidden: None, expects_name: false };
        let (mut out, mut at, mut changed) = (String::with_capacity(json.len()), 0, false);
        for lexeme in lexemes(json) {
            let text = lexeme.as_str();
            let Some(start) = json[at..].find(text).map(|found| at + found) else { break };
            let space = &json[at..start];
            at = start + text.len();
            match walk.step(lexeme) {
                Shows::AsItIs => out.extend([space, text]),
                Shows::Mask => {
                    out.extend([space, "\"", MASK, "\""]);
                    changed = true;
                }
                Shows::Nothing => {}
            }
        }
        out.push_str(&json[at..]);
        if changed { Cow::Owned(out) } else { Cow::Borrowed(json) }
    }

    fn hides_path(&self, names: &[Option<String>]) -> bool {
        let path: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
        self.fields.iter().any(|field| {
            path.len() >= field.len()
                && path[path.len() - field.len()..]
                    .iter()
                    .zip(field)
                    .all(|(name, wanted)| wanted == "*" || name == wanted)
        })
    }
}

/// What becomes of a part of the text.
enum Shows {
    AsItIs,
    Mask,
    Nothing,
}

/// Where a walk through a JSON text is.
struct Walk<'a> {
    masks: &'a Masks,
    deepest: usize,
    /// The names of the members that this place is in; `None` for an array.
    names: Vec<Option<String>>,
    /// How many levels of a hidden value are open.
    hidden: Option<usize>,
    /// Whether a string is the name of a member.
    expects_name: bool,
}

impl Walk<'_> {
    fn step(&mut self, lexeme: Lexeme<'_>) -> Shows {
        if let Some(open) = self.hidden {
            let open = match lexeme {
                Lexeme::Open(_) => open + 1,
                Lexeme::Close(_) => open - 1,
                _ => open,
            };
            self.hidden = (open > 0).then_some(open);
            return Shows::Nothing;
        }
        match lexeme {
            Lexeme::Text(name) if self.expects_name => {
                self.expects_name = false;
                if let Some(last) = self.names.last_mut() {
                    *last = Some(decoded(name).to_lowercase());
                }
                Shows::AsItIs
            }
            Lexeme::Comma => {
                self.expects_name = self.names.last().is_some_and(Option::is_some);
                Shows::AsItIs
            }
            Lexeme::Colon => Shows::AsItIs,
            Lexeme::Close(_) => {
                self.expects_name = false;
                self.names.pop();
                Shows::AsItIs
            }
            Lexeme::Open(bracket) => {
                if self.masks.hides_path(&self.names) {
                    self.hidden = Some(1);
                    return Shows::Mask;
                }
                self.expects_name = bracket == "{";
                self.names.push((bracket == "{").then(String::new));
                Shows::AsItIs
            }
            Lexeme::Text(text) if !self.masks.hides_path(&self.names) => {
                if self.hides_inside(text) {
                    Shows::Mask
                } else {
                    Shows::AsItIs
                }
            }
            Lexeme::Scalar(_) if !self.masks.hides_path(&self.names) => Shows::AsItIs,
            Lexeme::Text(_) | Lexeme::Scalar(_) => Shows::Mask,
        }
    }

    /// Whether a string holds a JSON text in which something is masked.
    fn hides_inside(&self, literal: &str) -> bool {
        if !literal[1..].trim_start().starts_with(['{', '[', '\\']) {
            return false;
        }
        let inner = decoded(literal);
        if !inner.trim_start().starts_with(['{', '[']) || !is_json(&inner) {
            return false;
        }
        self.deepest == 0 || matches!(self.masks.masked_within(&inner, self.deepest - 1), Cow::Owned(_))
    }
}

/// What a string literal says.
fn decoded(literal: &str) -> String {
    serde_json::from_str(literal).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks() -> Masks {
        Masks::none().field("password").field("card.number")
    }

    #[test]
    fn fields_are_found_at_any_depth_and_in_any_spelling() {
        for (json, expected) in [
            (r#"{"password":"x","a":1}"#, r#"{"password":"•••","a":1}"#),
            (r#"{"a":[{"PassWord":{"b":[1]}}, 2]}"#, r#"{"a":[{"PassWord":"•••"}, 2]}"#),
            (r#"{"pass\u0077ord":1.50}"#, r#"{"pass\u0077ord":"•••"}"#),
            (r#"{"card":{"number":"4","cvc":1}}"#, r#"{"card":{"number":"•••","cvc":1}}"#),
            (r#"{"card":[{"number":4}]}"#, r#"{"card":[{"number":"•••"}]}"#),
            (r#"{"number":4}"#, r#"{"number":4}"#),
            (r#"{"password":1,"password":2}"#, r#"{"password":"•••","password":"•••"}"#),
            (r#"{"inner":"{\"password\":1}"}"#, r#"{"inner":"•••"}"#),
            (r#"{"inner":"{\"other\":1}"}"#, r#"{"inner":"{\"other\":1}"}"#),
            (r#"{"a":"password"}"#, r#"{"a":"password"}"#),
            (r#"["password",{"a":{}},{"password":[]}]"#, r#"["password",{"a":{}},{"password":"•••"}]"#),
            (r#""password""#, r#""password""#),
        ] {
            assert_eq!(masks().masked(json), expected);
        }
    }

    #[test]
    fn a_star_stands_for_one_name() {
        let masks = Masks::none().field("user.*");
        assert_eq!(
            masks.masked(r#"{"user":{"a":1,"b":{"c":2}},"x":3}"#),
            r#"{"user":{"a":"•••","b":"•••"},"x":3}"#
        );
    }
}
