//! The prefix of the tables' names.

use cap_sql::templates::Templates;

use crate::database::error::Fault;

/// The longest prefix, so that names stay readable.
const LONGEST: usize = 50;

/// The prefix of the names of all tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TablePrefix {
    given: String,
    safe: String,
}

impl TablePrefix {
    pub(crate) fn new(prefix: &str) -> Self {
        let is_harmless = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        Self { given: prefix.to_owned(), safe: prefix.chars().filter(is_harmless).collect() }
    }

    /// The prefix as it is in SQL: nothing gets in that has a meaning there, even if it was not checked.
    pub(crate) fn safe(&self) -> &str {
        &self.safe
    }

    /// Checks that tables can have names that begin with it.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let given = &self.given;
        let reason = if given.is_empty() {
            "is empty, so that the tables could be mistaken for the application's"
        } else if given.len() > LONGEST {
            "is longer than 50 characters"
        } else if self.safe != *given {
            "has other characters than letters, digits and _"
        } else if !given.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            "begins with a digit"
        } else if given.to_ascii_lowercase().starts_with("sqlite_") {
            "belongs to SQLite itself"
        } else {
            return Ok(());
        };
        let shown: String = given.chars().take(LONGEST + 1).collect();
        Err(Fault::Unusable(format!(
            "the tables' prefix {shown:?} {reason}: choose another, such as \"cap_\""
        )))
    }

    /// Returns the templates for tables of this prefix.
    pub(crate) fn templates(&self) -> Templates {
        Templates::with_prefix(&self.safe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_loses_what_has_a_meaning_in_sql() {
        let prefix = TablePrefix::new("a\"; DROP TABLE x; --{prefix}");
        assert_eq!(prefix.safe(), "aDROPTABLExprefix");
        assert!(prefix.check().is_err());
    }

    #[test]
    fn prefixes_that_no_table_can_have_are_refused_with_a_reason() {
        for (prefix, reason) in [
            ("", "empty"),
            ("a b", "other characters"),
            ("größe_", "other characters"),
            ("a\0b", "other characters"),
            ("1a", "digit"),
            ("SQLite_", "SQLite itself"),
            (&*"x".repeat(51), "50 characters"),
        ] {
            let error = TablePrefix::new(prefix).check().unwrap_err();
            let Fault::Unusable(text) = error else { panic!("{error:?}") };
            assert!(text.contains(reason), "{text}");
        }
        for prefix in ["cap_", "Shop2_events_", "_x"] {
            assert!(TablePrefix::new(prefix).check().is_ok(), "{prefix}");
        }
    }
}
