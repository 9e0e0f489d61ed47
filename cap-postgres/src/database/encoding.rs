//! Databases whose encoding is not UTF8: which texts their columns can hold, and what replaces the others.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cap_adapter::message::MessageId;
use sqlx::PgConnection;

use crate::database::error::Fault;

/// How many characters that a database lacks are remembered. After that everything but ASCII counts as lacking.
const REMEMBERED: usize = 65_536;

/// The encoding of the database.
#[derive(Debug, Default)]
pub(crate) enum Encoding {
    /// Holds everything.
    #[default]
    Utf8,
    /// Holds any bytes, whatever characters they are.
    SqlAscii,
    Latin1,
    Win1252,
    /// Holds ASCII and some more, which only the server knows. It has refused these characters.
    Other(Mutex<HashSet<char>>),
    /// ASCII fits every encoding.
    Ascii,
}

/// The characters that windows-1252 has in the place of control characters.
const WIN1252: &str = "\u{20ac}\u{201a}\u{0192}\u{201e}\u{2026}\u{2020}\u{2021}\u{02c6}\u{2030}\u{0160}\u{2039}\u{0152}\u{017d}\u{2018}\u{2019}\u{201c}\u{201d}\u{2022}\u{2013}\u{2014}\u{02dc}\u{2122}\u{0161}\u{203a}\u{0153}\u{017e}\u{0178}";

impl Encoding {
    /// The encoding of this name, as `server_encoding` has it.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "UTF8" => Self::Utf8,
            "SQL_ASCII" => Self::SqlAscii,
            "LATIN1" => Self::Latin1,
            "WIN1252" => Self::Win1252,
            _ => Self::Other(Mutex::default()),
        }
    }

    /// For statements that are not tried again without the characters that the server refuses.
    pub(crate) fn certain(&self) -> &Self {
        if matches!(self, Self::Other(_)) { &Self::Ascii } else { self }
    }

    fn holds(&self, c: char) -> bool {
        match self {
            _ if c.is_ascii() => true,
            Self::Utf8 | Self::SqlAscii => true,
            Self::Latin1 => u32::from(c) <= 0xff,
            Self::Win1252 => (0xa0..=0xff).contains(&u32::from(c)) || WIN1252.contains(c),
            Self::Other(lacking) => {
                let lacking = lock(lacking);
                lacking.len() < REMEMBERED && !lacking.contains(&c)
            }
            Self::Ascii => false,
        }
    }

    /// Headers as JSON: anything but ASCII is escaped where the database is not UTF8, which any reader of JSON undoes.
    pub(crate) fn headers(&self, json: String) -> String {
        if matches!(self, Self::Utf8) || json.is_ascii() {
            return json;
        }
        // Outside of strings JSON is ASCII.
        escaped(&json, |c| c.is_ascii())
    }

    /// The text with each character that the database cannot hold escaped, as in `\u0416`.
    pub(crate) fn escaped<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.holds_all(text) { Cow::Borrowed(text) } else { escaped(text, |c| self.holds(c)).into() }
    }

    /// The name with a question mark for each character that the database cannot hold: it gets no longer.
    pub(crate) fn fitting<'t>(&self, name: &'t str) -> Cow<'t, str> {
        if self.holds_all(name) { Cow::Borrowed(name) } else { replaced(name, |c| self.holds(c)).into() }
    }

    /// The same for an id. Two ids are never replaced by one: a sum of the whole follows. An id is replaced in the same
    /// way at any time and by every node, whatever each knows of the encoding.
    pub(crate) fn fitting_id<'t>(&self, id: &'t str) -> Cow<'t, str> {
        let encoding = self.certain();
        if encoding.holds_all(id) {
            return Cow::Borrowed(id);
        }
        let sum = fnv(id, 0xcbf2_9ce4_8422_2325);
        let suffix = format!("#{sum:016x}{:016x}", fnv(id, sum));
        let kept = replaced(id, |c| encoding.holds(c));
        let kept: String = kept.chars().take(MessageId::MAX_LENGTH - suffix.len()).collect();
        Cow::Owned(kept + &suffix)
    }

    fn holds_all(&self, text: &str) -> bool {
        text.is_ascii() || text.chars().all(|c| self.holds(c))
    }

    /// Learns which characters of these texts, which the server has refused, it does not have; whether there are any.
    pub(crate) async fn learn(
        &self,
        connection: &mut PgConnection,
        texts: impl Iterator<Item = &str>,
    ) -> Result<bool, Fault> {
        let Self::Other(lacking) = self else { return Ok(false) };
        let unsure: HashSet<char> =
            texts.flat_map(str::chars).filter(|c| !c.is_ascii() && self.holds(*c)).collect();
        let mut lacks = false;
        // Halves of what is refused are asked for again, down to single characters.
        let mut parts = vec![unsure.into_iter().collect::<Vec<char>>()];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() || fits(connection, &part.iter().collect::<String>()).await? {
                continue;
            }
            if let [c] = part[..] {
                lacks = true;
                lock(lacking).insert(c);
                continue;
            }
            parts.push(part.split_off(part.len() / 2));
            parts.push(part);
        }
        Ok(lacks)
    }
}

/// Whether the database can hold a text.
pub(crate) async fn fits(connection: &mut PgConnection, text: &str) -> Result<bool, Fault> {
    let asked = sqlx::query_scalar::<_, i32>("SELECT pg_catalog.length($1::pg_catalog.text)").bind(text);
    match asked.fetch_one(connection).await.map_err(Fault::from) {
        Ok(_) => Ok(true),
        Err(fault) if fault.is_outside_encoding() => Ok(false),
        Err(fault) => Err(fault),
    }
}

fn escaped(text: &str, holds: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if holds(c) {
            escaped.push(c);
        } else {
            let units = &mut [0; 2];
            escaped.extend(c.encode_utf16(units).iter().map(|unit| format!("\\u{unit:04X}")));
        }
    }
    escaped
}

fn replaced(text: &str, holds: impl Fn(char) -> bool) -> String {
    text.chars().map(|c| if holds(c) { c } else { '?' }).collect()
}

fn lock(lacking: &Mutex<HashSet<char>>) -> MutexGuard<'_, HashSet<char>> {
    lacking.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert_eq!(Encoding::Latin1.escaped("gr\u{f6}\u{416}\u{1f600}"), "gr\u{f6}\\u0416\\uD83D\\uDE00");
        let other = Encoding::Other(Mutex::new(HashSet::from(['\u{416}'])));
        assert_eq!(other.fitting("gr\u{f6}\u{416}"), "gr\u{f6}?");
        assert_eq!(other.certain().fitting("gr\u{f6}\u{416}"), "gr??");
        assert_eq!(other.fitting_id("\u{f6}"), Encoding::Ascii.fitting_id("\u{f6}"));
        assert_eq!(Encoding::SqlAscii.fitting("\u{416}"), "\u{416}");
        let ids = [Encoding::Latin1.fitting_id("\u{416}"), Encoding::Latin1.fitting_id("\u{417}")];
        assert_ne!(ids[0], ids[1]);
        assert_eq!(Encoding::Latin1.fitting_id("id-1"), "id-1");
        assert!(Encoding::Latin1.fitting_id(&"\u{416}".repeat(100)).len() <= MessageId::MAX_LENGTH);
    }
}
