//! What the two ways of inserting published messages have in common.

use cap_adapter::storage::{NewOutgoing, Stored, TransactionId};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::database::error::Fault;

/// What a caller asks about an insert on a connection of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing but what became of the messages.
    Nothing,
    /// How many messages were stored in the transaction, which is counted in a setting of it.
    Count,
    /// The number of the transaction.
    Transaction,
}

/// The result of an insert.
#[derive(Debug)]
pub(crate) struct Inserted {
    pub(crate) stored: Vec<Stored>,
    /// How many messages were stored in the transaction so far, if that was asked.
    pub(crate) counted: i32,
    /// The number of the transaction, if that was asked.
    pub(crate) transaction: Option<TransactionId>,
}

impl Inserted {
    /// Reads the row that the last statement has returned; `None` if there was nothing to store.
    pub(crate) fn new(stored: Vec<Stored>, row: Option<&PgRow>) -> Result<Self, Fault> {
        let Some(row) = row else { return Ok(Self { stored, counted: 0, transaction: None }) };
        let transaction: Option<i64> = row.try_get("transaction")?;
        Ok(Self {
            stored,
            counted: row.try_get::<Option<i32>, _>("counted")?.unwrap_or(0),
            transaction: transaction.map(TransactionId),
        })
    }
}

/// The message id, unless the row id in decimal is the same text.
pub(crate) fn own_message_id(new: &NewOutgoing) -> Option<&str> {
    new.message.id().filter(|id| number(id) != Some(new.id))
}

/// The number that a text is the usual decimal form of.
pub(crate) fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_usual = match digits.as_bytes() {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if is_usual { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_usual_form_of_a_number_is_one() {
        assert_eq!(number("17"), Some(17));
        for number_as_text in [i64::MIN, -17, -1, 0, 1, i64::MAX] {
            assert_eq!(number(&number_as_text.to_string()), Some(number_as_text));
        }
        for text in
            ["017", "+17", "", "-", "-0", "00", "-017", "1 ", "1a", "seventeen", "99999999999999999999"]
        {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
