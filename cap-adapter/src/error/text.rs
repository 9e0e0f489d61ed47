//! Error texts as they are stored and logged: bounded, on one line, and without message contents.
//!
//! [`error_text`] processes every error before it is stored or logged. An error text may contain anything, since a
//! sender's bytes get into it: a megabyte, a line break that forges a log line, an escape sequence that controls the
//! terminal of its reader.

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

#[cfg(test)]
mod tests {
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
}
