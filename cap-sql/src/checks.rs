//! Whether texts fit their columns.

use std::borrow::Cow;

use cap_adapter::message::{MAX_NAME_LENGTH, Message, MessageId};
use cap_adapter::storage::Owner;

/// The reason why data can never be stored: the same call will not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

/// The longest version tag, as in .NET CAP.
const LONGEST_VERSION: usize = 20;

/// Checks that a text fits a column of `longest` characters. A NUL character is refused: PostgreSQL cannot store it, and
/// SQLite's functions stop at it.
///
/// # Errors
///
/// A refusal that begins with `what`.
pub fn check_text(what: &str, text: &str, longest: usize) -> Result<(), Refused> {
    check(|| what.into(), text, longest)
}

/// Checks the name and the version of a node.
///
/// # Errors
///
/// A refusal that names the column.
pub fn check_owner(owner: &Owner) -> Result<(), Refused> {
    check_text("the version", &owner.version, LONGEST_VERSION)?;
    check_node(&owner.node)
}

/// Checks the name of a node.
///
/// # Errors
///
/// A refusal that names the column.
pub fn check_node(node: &str) -> Result<(), Refused> {
    check_text("the node's name", node, usize::MAX)
}

/// Checks the parts of a message that have columns of their own. `row` is the id of its row.
///
/// # Errors
///
/// A refusal that names the column and the row.
pub fn check_message(row: i64, message: &Message) -> Result<(), Refused> {
    let (topic, id) = (message.name().unwrap_or_default(), message.id().unwrap_or_default());
    check(|| format!("the topic of message {row}"), topic, MAX_NAME_LENGTH)?;
    check(|| format!("the message id of message {row}"), id, MessageId::MAX_LENGTH)
}

/// Checks the group of a received message. `row` is the id of its row.
///
/// # Errors
///
/// A refusal that names the column and the row.
pub fn check_group(row: i64, group: &str) -> Result<(), Refused> {
    check(|| format!("the group of message {row}"), group, MAX_NAME_LENGTH)
}

/// The name of the column is made only when it is needed: this runs for every message.
fn check(what: impl Fn() -> String, text: &str, longest: usize) -> Result<(), Refused> {
    // No text has more characters than bytes.
    if text.len() > longest {
        let length = text.chars().count();
        if length > longest {
            let what = what();
            return Err(Refused(format!("{what} has {length} characters; at most {longest} can be stored")));
        }
    }
    if text.contains('\0') {
        return Err(Refused(format!("{} has a NUL character, which cannot be stored", what())));
    }
    Ok(())
}

/// Replaces NUL characters, which no text that operators read can hold.
#[must_use]
pub fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_replaced() {
        assert_eq!(without_nul("a\0b"), "a\u{fffd}b");
        assert!(matches!(without_nul("ab"), Cow::Borrowed("ab")));
    }

    #[test]
    fn a_text_is_measured_in_characters() {
        assert_eq!(check_text("it", "\u{f6}\u{f6}", 2), Ok(()));
        let longer = check_text("it", "\u{f6}\u{f6}\u{f6}", 2);
        assert_eq!(longer, Err(Refused("it has 3 characters; at most 2 can be stored".into())));
        assert!(check_text("it", "a\0", 2).is_err());
    }
}
