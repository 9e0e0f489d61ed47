//! Which messages an operator asks for, as the parameters of a statement.

use std::borrow::Cow;
use std::collections::HashSet;

use cap_adapter::message::headers::names;
use cap_adapter::message::{Headers, Message};
use cap_adapter::monitor::{Change, MessageState, Query};
use cap_adapter::storage::{Reason, Status};

use crate::checks::{Refused, check_text, without_nul};
use crate::columns::{limit_of, micros_since_1970, status_code};

/// The parameters of a list. `None` means that the column is not looked at.
#[derive(Debug)]
#[non_exhaustive]
pub struct ListFilter<'a> {
    /// Whether the few state rows are looked through, for what is rare; everything else is looked for among the messages.
    pub by_state: bool,
    /// The first row id.
    pub first: i64,
    /// The row id before which the list begins.
    pub before: i64,
    /// The topic, exactly.
    pub topic: Option<&'a str>,
    /// Another topic that will do.
    pub or_topic: Option<&'a str>,
    /// The group, exactly.
    pub group: Option<&'a str>,
    /// Another group that will do.
    pub or_group: Option<&'a str>,
    /// The version, exactly.
    pub version: Option<&'a str>,
    /// The code of the status.
    pub status: Option<i16>,
    /// The reason.
    pub reason: Option<&'static str>,
    /// The reason that rows do not have.
    pub without: Option<&'static str>,
    /// A part of the last error, as errors are stored.
    pub error: Option<Cow<'a, str>>,
    /// The earliest time, in microseconds since 1970.
    pub since: Option<i64>,
    /// The time before which messages were stored, in microseconds since 1970.
    pub until: Option<i64>,
    /// The [code](state_code) of the state.
    pub state: Option<i16>,
    /// The correlation id, as a part of the stored headers.
    pub correlation: Option<String>,
    /// A header with its value, as a part of the stored headers.
    pub header: Option<String>,
    /// A part of the body.
    pub text: Option<&'a [u8]>,
    /// The owner, or the node of a failed attempt.
    pub node: Option<&'a str>,
    /// How many rows at most.
    pub limit: i64,
}

/// The code of a state in statements. It is stored nowhere; the first five are those of the statuses.
#[must_use]
pub fn state_code(state: MessageState) -> i16 {
    match state {
        MessageState::Scheduled => status_code(Status::Scheduled),
        MessageState::Delayed => status_code(Status::Delayed),
        MessageState::Retrying => status_code(Status::Retrying),
        MessageState::Parked => status_code(Status::Failed),
        MessageState::Succeeded => status_code(Status::Succeeded),
        MessageState::Leased => 5,
        MessageState::Cancelled => 6,
        // No row has it.
        _ => -1,
    }
}

/// A header as it is written within stored headers. The quotation mark at its beginning is never part of a value, in which it
/// has a backslash.
fn within_headers(name: &str, value: &str) -> String {
    let one: Headers = [(name.to_owned(), value.to_owned())].into_iter().collect();
    let json = one.to_json();
    json.trim_start_matches('{').strip_suffix('}').unwrap_or_default().to_owned()
}

impl<'a> ListFilter<'a> {
    /// Makes the parameters of a query.
    ///
    /// # Errors
    ///
    /// A refusal if a text cannot be compared with what is stored.
    pub fn new(query: &'a Query) -> Result<Self, Refused> {
        for text in
            [&query.topic, &query.or_topic, &query.group, &query.or_group, &query.version, &query.node]
                .into_iter()
                .flatten()
        {
            check_text("a text to look for", text, usize::MAX)?;
        }
        let by_state = query.reason.is_some()
            || query.error.is_some()
            || query.status.is_some_and(|status| status != Status::Succeeded)
            || query.state.is_some_and(|state| state != MessageState::Succeeded);
        let ids = query.row_ids();
        Ok(Self {
            by_state,
            first: if by_state { i64::MIN } else { ids.start },
            before: if by_state { query.before.unwrap_or(i64::MAX) } else { ids.end },
            topic: query.topic.as_deref(),
            or_topic: query.or_topic.as_deref(),
            group: query.group.as_deref(),
            or_group: query.or_group.as_deref(),
            version: query.version.as_deref(),
            status: query.status.map(status_code),
            reason: query.reason.map(Reason::as_str),
            without: query.without.map(Reason::as_str),
            error: query.error.as_deref().map(without_nul),
            since: query.since.map(micros_since_1970),
            until: query.until.map(micros_since_1970),
            state: query.state.map(state_code),
            correlation: query.correlation_id.as_deref().map(|id| within_headers(names::CORRELATION_ID, id)),
            header: query.header.as_ref().map(|(name, value)| within_headers(name, value)),
            text: query.text.as_deref(),
            node: query.node.as_deref(),
            limit: limit_of(query.limit),
        })
    }
}

impl ListFilter<'_> {
    /// Narrows it to one row, if that is among those that it selects.
    pub fn only(&mut self, id: i64) {
        self.first = self.first.max(id);
        self.before = self.before.min(id.saturating_add(1));
    }
}

/// Returns those of the requested ids for which `done` is true, each once and in the order of the request.
pub fn in_requested_order(requested: &[i64], mut done: impl FnMut(i64) -> bool) -> Vec<i64> {
    let mut seen = HashSet::new();
    requested.iter().copied().filter(|id| seen.insert(*id) && done(*id)).collect()
}

/// Returns the changed headers of a message that is run again. `None` if the stored ones cannot be read: it stays as it is,
/// and fails again as soon as it is claimed. The old body has no part in the new one and need not be read.
#[must_use]
pub fn changed_headers(stored: &str, change: &Change) -> Option<String> {
    let headers = Headers::from_json(stored).ok()?;
    Some(change.apply(&Message::new(headers, Vec::new())).headers.to_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_found_only_as_a_whole() {
        let stored = |value: &str| -> String {
            let pairs = [("a", "1"), ("cap-corr-id", value), ("z", "")];
            pairs.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect::<Headers>().to_json()
        };
        let part = within_headers("cap-corr-id", "o}\"\n{1");
        assert!(stored("o}\"\n{1").contains(&part));
        assert!(!stored("o}\"\n{12").contains(&part) && !stored(&part).contains(&part));
        assert!(!stored("x").contains(&within_headers("corr-id", "x")), "not a part of a name");
    }
}
