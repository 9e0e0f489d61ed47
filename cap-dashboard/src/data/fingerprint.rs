//! What an error text is about, without the numbers and ids that differ from message to message.

/// What stands in place of a number or an id.
pub(crate) const VARIABLE: char = '#';
/// The most characters of a fingerprint.
const LONGEST: usize = 240;
/// A word of at least this many hexadecimal digits, with a number among them, is an id.
const SHORTEST_ID: usize = 8;

/// The first line of an error text, of at most 240 characters, with `#` for numbers and ids: errors of one cause have the same.
#[must_use]
pub fn fingerprint(error: &str) -> String {
    let mut out = String::new();
    for word in words(error.lines().next().unwrap_or_default()) {
        if is_variable(word) {
            if !out.ends_with(VARIABLE) {
                out.push(VARIABLE);
            }
        } else {
            out.push_str(word);
        }
        if out.len() > LONGEST {
            break;
        }
    }
    out.chars().take(LONGEST).collect()
}

/// The longest part of an error that is the same in all errors of its fingerprint, to find them by.
pub(crate) fn common_part(error: &str) -> String {
    let mut parts = vec![String::new()];
    for word in words(error.lines().next().unwrap_or_default()) {
        if is_variable(word) {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push_str(word);
        }
    }
    let longest = parts.into_iter().max_by_key(String::len).unwrap_or_default();
    longest.trim().chars().take(LONGEST).collect()
}

/// Words, and what is between them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_alphanumeric();
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end =
            if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

fn is_variable(word: &str) -> bool {
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    has_digit
        && (word.bytes().all(|byte| byte.is_ascii_digit())
            || (word.len() >= SHORTEST_ID && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
            || word.bytes().filter(u8::is_ascii_digit).count() * 2 >= word.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ids_are_taken_out() {
        for (error, expected) in [
            ("connection refused: db:5432 (request 17)", "connection refused: db:# (request #)"),
            ("no order 9f8e7d6c-1111-2222-3333-444455556666", "no order #-#-#-#-#"),
            ("row 7 failed\nat line 3", "row # failed"),
            ("utf8 is not valid", "utf8 is not valid"),
            ("took 15ms", "took #"),
            ("", ""),
        ] {
            assert_eq!(fingerprint(error), expected);
        }
    }

    #[test]
    fn the_common_part_is_in_every_error_of_its_kind() {
        assert_eq!(common_part("request 17: connection refused, attempt 3"), ": connection refused, attempt");
        assert_eq!(common_part("17"), "");
    }
}
