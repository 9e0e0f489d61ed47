//! The rows of a call that was made before.
//!
//! After an answer that was lost the bus calls again. A row id that is taken then means that the row is stored already, if it
//! holds the very same message.

use std::collections::{HashMap, HashSet};

use cap_adapter::storage::{NewIncoming, NewOutgoing, Side, Stored, WriteBatch};

use crate::checks::Refused;
use crate::columns::side_name;

/// A row to be inserted, as far as it matters whether it is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate<'a> {
    /// The headers, as they are stored.
    pub headers: String,
    /// The body.
    pub body: &'a [u8],
    /// The group; empty for the outbox.
    pub group: &'a str,
}

/// The candidates of a side, by row id.
pub type Candidates<'a> = HashMap<i64, Candidate<'a>>;

/// Returns the candidates of a batch for the outbox. `stored` makes of headers what the database stores.
///
/// # Errors
///
/// A refusal if two messages have one row id.
pub fn outgoing(batch: &WriteBatch, stored: impl Fn(String) -> String) -> Result<Candidates<'_>, Refused> {
    let published = batch.completed_incoming.iter().flat_map(|row_completion| &row_completion.publishes);
    let candidate = |new: &'_ NewOutgoing| stored(new.message.headers.to_json());
    by_id(
        Side::Outbox,
        batch
            .outgoing
            .iter()
            .chain(published)
            .map(|new| (new.id, Candidate { headers: candidate(new), body: &new.message.body, group: "" })),
    )
}

/// Returns the candidates of a batch for the inbox. `stored` makes of headers what the database stores.
///
/// # Errors
///
/// A refusal if two messages have one row id.
pub fn incoming(batch: &WriteBatch, stored: impl Fn(String) -> String) -> Result<Candidates<'_>, Refused> {
    let candidate = |new: &'_ NewIncoming| stored(new.message.headers.to_json());
    by_id(
        Side::Inbox,
        batch.incoming.iter().map(|new| {
            (new.id, Candidate { headers: candidate(new), body: &new.message.body, group: &new.group })
        }),
    )
}

fn by_id<'a>(
    side: Side,
    candidates: impl Iterator<Item = (i64, Candidate<'a>)>,
) -> Result<Candidates<'a>, Refused> {
    let mut by_id = HashMap::new();
    for (id, candidate) in candidates {
        if by_id.insert(id, candidate.clone()).is_some_and(|earlier| earlier != candidate) {
            return Err(another_message(side, id));
        }
    }
    Ok(by_id)
}

/// Returns the refusal of a row id under which another message is stored: one of the two would be lost unnoticed.
#[must_use]
pub fn another_message(side: Side, id: i64) -> Refused {
    let table = side_name(side);
    Refused(format!("row {id} of the {table} holds another message; do two nodes have the same worker id?"))
}

/// The row ids of a batch that are stored already, with the same message.
#[derive(Debug)]
pub struct Repeated {
    outbox: HashSet<i64>,
    inbox: HashSet<i64>,
}

impl Repeated {
    /// Takes the ids that were found in the tables.
    #[must_use]
    pub fn new(outbox: Vec<i64>, inbox: Vec<i64>) -> Self {
        Self { outbox: outbox.into_iter().collect(), inbox: inbox.into_iter().collect() }
    }

    fn contains(&self, side: Side, id: i64) -> bool {
        match side {
            Side::Outbox => self.outbox.contains(&id),
            Side::Inbox => self.inbox.contains(&id),
        }
    }
}

/// Returns the rows to insert, and their places: all of them, as ids are unique; or, once it is known that some are stored
/// already, those that are not, the first of each id.
pub fn first_of_each<'a, T>(
    rows: impl Iterator<Item = &'a T>,
    id: impl Fn(&T) -> i64,
    side: Side,
    repeated: Option<&Repeated>,
) -> (Vec<&'a T>, Vec<usize>) {
    let mut seen = HashSet::new();
    let mut is_first =
        |id: i64| repeated.is_none_or(|repeated| !repeated.contains(side, id) && seen.insert(id));
    rows.enumerate().filter(|(_, row)| is_first(id(row))).map(|(place, row)| (row, place)).unzip()
}

/// Returns what became of each of `length` rows: `stored` for those at `places`, a duplicate for the others.
#[must_use]
pub fn spread(length: usize, places: &[usize], stored: Vec<Stored>) -> Vec<Stored> {
    if places.len() == length {
        return stored;
    }
    let mut all = vec![Stored::Duplicate; length];
    for (place, stored) in places.iter().zip(stored) {
        all[*place] = stored;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_of_a_repeated_id_is_inserted() {
        let rows = [1, 2, 2, 3];
        let all = first_of_each(rows.iter(), |row| *row, Side::Inbox, None);
        assert_eq!(all.1, [0, 1, 2, 3], "ids are unique until the database says otherwise");
        let repeated = Repeated::new(Vec::new(), vec![3]);
        let (fresh, places) = first_of_each(rows.iter(), |row| *row, Side::Inbox, Some(&repeated));
        assert_eq!((fresh, &*places), (vec![&1, &2], &[0, 1][..]));
        let (new, duplicate) = (Stored::New, Stored::Duplicate);
        assert_eq!(spread(4, &places, vec![new, new]), [new, new, duplicate, duplicate]);
    }
}
