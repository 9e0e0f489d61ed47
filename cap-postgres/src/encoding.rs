//! Databases whose encoding is not UTF8: which texts their columns can hold, and what stands in for the others.

use std::borrow::Cow;

use cap_adapter::message::MessageId;

/// What a database of another encoding makes of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Encoding {
    /// Holds everything.
    #[default]
    Utf8,
    /// Holds the bytes as they come, and knows nothing of characters.
    SqlAscii,
    Latin1,
    Win1252,
    /// Holds some more than ASCII; which, only the server knows.
    Other,
}

/// What windows-1252 has in the place of control characters.
const WIN1252: &str = "\u{20ac}\u{201a}\u{0192}\u{201e}\u{2026}\u{2020}\u{2021}\u{02c6}\u{2030}\u{0160}\u{2039}\u{0152}\u{017d}\u{2018}\u{2019}\u{201c}\u{201d}\u{2022}\u{2013}\u{2014}\u{02dc}\u{2122}\u{0161}\u{203a}\u{0153}\u{017e}\u{0178}";

impl Encoding {
    /// The encoding of this name, as `server_encoding` has it.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "UTF8" => Self::Utf8,
            "SQL_ASCII" => Self::SqlAscii,
            "LATIN1" => Self::Latin1,
            "WIN1252" => Self::Win1252,
            _ => Self::Other,
        }
    }

    fn holds(self, c: char) -> bool {
        match self {
            Self::Utf8 | Self::SqlAscii => true,
            Self::Latin1 => u32::from(c) <= 0xff,
            Self::Win1252 => c.is_ascii() || (0xa0..=0xff).contains(&u32::from(c)) || WIN1252.contains(c),
            Self::Other => c.is_ascii(),
        }
    }

    /// Headers as JSON: anything but ASCII is escaped where the database is not UTF8, which any reader of JSON undoes.
    pub(crate) fn headers(self, json: String) -> String {
        if self == Self::Utf8 || json.is_ascii() {
            return json;
        }
        let mut escaped = String::with_capacity(json.len() * 2);
        // Outside of strings JSON is ASCII.
        for c in json.chars() {
            if c.is_ascii() {
                escaped.push(c);
            } else {
                let units = &mut [0; 2];
                escaped.extend(c.encode_utf16(units).iter().map(|unit| format!("\\u{unit:04X}")));
            }
        }
        escaped
    }

    /// The text with a question mark for each character that the database cannot hold.
    pub(crate) fn fitting(self, text: &str) -> Cow<'_, str> {
        if text.chars().all(|c| self.holds(c)) {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.chars().map(|c| if self.holds(c) { c } else { '?' }).collect())
    }

    /// The same for an id. Two ids are never replaced by one: a sum of the whole follows.
    pub(crate) fn fitting_id(self, id: &str) -> Cow<'_, str> {
        match self.fitting(id) {
            Cow::Borrowed(id) => Cow::Borrowed(id),
            Cow::Owned(replaced) => {
                let sum = fnv(id, 0xcbf2_9ce4_8422_2325);
                let suffix = format!("#{sum:016x}{:016x}", fnv(id, sum));
                let kept: String = replaced.chars().take(MessageId::MAX_LENGTH - suffix.len()).collect();
                Cow::Owned(kept + &suffix)
            }
        }
    }
}

/// FNV-1a.
fn fnv(text: &str, start: u64) -> u64 {
    text.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 8, row 9.
    #[test]
    fn headers_are_escaped_and_read_back() {
        let json = "{\"a\":\"\u{416}\u{e9}\u{1f600}\\n\"}";
        let escaped = Encoding::Latin1.headers(json.to_owned());
        assert_eq!(escaped, "{\"a\":\"\\u0416\\u00E9\\uD83D\\uDE00\\n\"}");
        assert_eq!(Encoding::Utf8.headers(json.to_owned()), json);
        let read =
            |json: &str| cap_adapter::message::Headers::from_json(json).map(|headers| headers.to_json());
        assert_eq!(read(&escaped).ok(), read(json).ok());
    }

    #[test]
    fn only_what_the_encoding_lacks_is_replaced() {
        assert_eq!(Encoding::Latin1.fitting("gr\u{f6}\u{416}\u{20ac}"), "gr\u{f6}??");
        assert_eq!(Encoding::Win1252.fitting("gr\u{f6}\u{416}\u{20ac}"), "gr\u{f6}?\u{20ac}");
        assert_eq!(Encoding::SqlAscii.fitting("\u{416}"), "\u{416}");
        let ids = [Encoding::Latin1.fitting_id("\u{416}"), Encoding::Latin1.fitting_id("\u{417}")];
        assert_ne!(ids[0], ids[1]);
        assert_eq!(Encoding::Latin1.fitting_id("id-1"), "id-1");
        assert!(Encoding::Latin1.fitting_id(&"\u{416}".repeat(100)).len() <= MessageId::MAX_LENGTH);
    }
}
