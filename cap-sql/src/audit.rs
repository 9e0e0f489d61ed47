//! How acts of operators are kept in columns.

use std::fmt::Write as _;

/// Row ids as a text: `7,8,9`.
#[must_use]
pub fn ids_to_text(ids: &[i64]) -> String {
    ids.iter().fold(String::new(), |mut text, id| {
        let separator = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{separator}{id}");
        text
    })
}

/// The row ids of such a text. What is no number is left out.
#[must_use]
pub fn ids_of_text(text: &str) -> Vec<i64> {
    text.split(',').filter_map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_as_they_were() {
        for ids in [&[][..], &[7], &[i64::MIN, 0, i64::MAX]] {
            assert_eq!(ids_of_text(&ids_to_text(ids)), ids);
        }
    }
}
