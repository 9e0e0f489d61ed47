//! The filter of a list, as it stands in the URL.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use cap_core::Messages;
use cap_core::storage::{Reason, Side, Status};

use crate::request::{Params, Problem};
use crate::text::iso;

/// The most rows of a page.
const MOST_ROWS: usize = 200;
/// The rows of a page without `per_page`.
const ROWS: usize = 50;

/// The names of the parameters, in the order in which links have them.
const NAMES: [&str; 11] = [
    "side", "status", "reason", "topic", "group", "error", "since", "until", "version", "per_page", "before",
];

/// The filter of a list.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub(crate) side: Side,
    status: Option<Selected>,
    reason: Option<Reason>,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    before: Option<i64>,
    pub(crate) per_page: usize,
    /// The parameters as they were written.
    pub(crate) params: Params,
}

/// What the parameter `status` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Selected {
    Status(Status),
    /// Failed and not cancelled.
    Parked,
    Cancelled,
}

impl Filter {
    /// The filter of these parameters for one side, or for the side that they name.
    pub(crate) fn parse(params: &Params, side: Option<Side>) -> Result<Self, Problem> {
        let named = match params.get("side") {
            None | Some("received") => Side::Inbox,
            Some("published") => Side::Outbox,
            Some(other) => return Err(Problem::bad(format!("side is published or received, not {other:?}"))),
        };
        let now = SystemTime::now();
        Ok(Self {
            side: side.unwrap_or(named),
            status: params.get("status").filter(|name| *name != "all").map(selected).transpose()?,
            reason: params.get("reason").map(reason).transpose()?,
            since: params.get("since").map(|text| time("since", text, now)).transpose()?,
            until: params.get("until").map(|text| time("until", text, now)).transpose()?,
            before: params.number("before")?,
            per_page: match params.number("per_page")? {
                None => ROWS,
                Some(rows @ 1..=MOST_ROWS) => rows,
                Some(rows) => return Err(Problem::bad(format!("per_page is 1 to {MOST_ROWS}, not {rows}"))),
            },
            params: params.clone(),
        })
    }

    /// The same filter for parked messages only.
    pub(crate) fn parked(mut self) -> Self {
        self.status = Some(Selected::Parked);
        self
    }

    /// The same filter for delayed messages only.
    pub(crate) fn delayed(mut self) -> Self {
        self.side = Side::Outbox;
        self.status = Some(Selected::Status(Status::Delayed));
        self
    }

    /// Narrows a selection to what matches.
    pub(crate) fn apply(&self, messages: Messages) -> Messages {
        let mut messages = messages.side(self.side);
        match self.status {
            None => {}
            Some(Selected::Status(status)) => messages = messages.status(status),
            Some(Selected::Parked) => messages = messages.parked(),
            Some(Selected::Cancelled) => messages = messages.status(Status::Failed).reason(Reason::Cancelled),
        }
        if let Some(reason) = self.reason {
            messages = messages.reason(reason);
        }
        if let Some(topic) = self.params.get("topic") {
            messages = messages.topic(topic);
        }
        if let Some(group) = self.params.get("group").filter(|_| self.side == Side::Inbox) {
            messages = messages.group(group);
        }
        if let Some(error) = self.params.get("error") {
            messages = messages.error(error);
        }
        if let Some(since) = self.since {
            messages = messages.since(since);
        }
        if let Some(until) = self.until {
            messages = messages.until(until);
        }
        if let Some(before) = self.before {
            messages = messages.before(before);
        }
        match self.params.get("version") {
            None => messages,
            Some("all") => messages.all_versions(),
            Some(version) => messages.version(version),
        }
    }

    /// Whether a parameter besides the side, the status and the page narrows the list.
    pub(crate) fn is_narrowed(&self) -> bool {
        NAMES[2..9].iter().any(|name| self.params.get(name).is_some())
    }

    /// Whether this is not the first page.
    pub(crate) fn is_later_page(&self) -> bool {
        self.before.is_some()
    }

    /// The parameter as it was written; empty if it is absent.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.params.get(name).unwrap_or_default()
    }

    /// The query with one parameter set, or removed by an empty value. A link to another filter begins at its first page.
    pub(crate) fn query_with(&self, name: &str, value: &str) -> String {
        self.query(Some((name, value)), name == "before")
    }

    /// The query of this filter's first page.
    pub(crate) fn first_page(&self) -> String {
        self.query(None, false)
    }

    /// The parameters that select messages, for the hidden fields of a form.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let selecting = NAMES.into_iter().filter(|name| !matches!(*name, "before" | "per_page" | "side"));
        // "2h ago" means another time when it is read again: the fields name the time.
        let written = selecting.filter_map(|name| match name {
            "since" => self.since.map(|time| (name, iso(time))),
            "until" => self.until.map(|time| (name, iso(time))),
            _ => Some((name, self.params.get(name)?.to_owned())),
        });
        let side = if self.side == Side::Inbox { "received" } else { "published" };
        [("side", side.to_owned())].into_iter().chain(written).collect()
    }

    fn query(&self, changed: Option<(&str, &str)>, keeps_page: bool) -> String {
        let mut query = String::new();
        for name in NAMES {
            let own = self.params.get(name).filter(|_| keeps_page || name != "before").unwrap_or_default();
            let value = changed.filter(|(changed, _)| *changed == name).map_or(own, |(_, value)| value);
            if !value.is_empty() {
                let separator = if query.is_empty() { '?' } else { '&' };
                let _ = write!(query, "{separator}{name}={}", encoded(value));
            }
        }
        query
    }
}

/// A value as it stands in a query.
pub(crate) fn encoded(value: &str) -> String {
    value.bytes().fold(String::with_capacity(value.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// The stable name of a status, in URLs, classes and the API.
pub(crate) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Scheduled => "scheduled",
        Status::Delayed => "delayed",
        Status::Retrying => "retrying",
        Status::Failed => "failed",
        Status::Succeeded => "succeeded",
        _ => "other",
    }
}

fn selected(name: &str) -> Result<Selected, Problem> {
    Ok(match name {
        "scheduled" => Selected::Status(Status::Scheduled),
        "delayed" => Selected::Status(Status::Delayed),
        "retrying" => Selected::Status(Status::Retrying),
        "failed" => Selected::Status(Status::Failed),
        "succeeded" => Selected::Status(Status::Succeeded),
        "parked" => Selected::Parked,
        "cancelled" => Selected::Cancelled,
        other => {
            return Err(Problem::bad(format!(
                "no such status: {other:?}; it is scheduled, delayed, retrying, failed, succeeded, parked or cancelled"
            )));
        }
    })
}

fn reason(name: &str) -> Result<Reason, Problem> {
    Reason::from_name(name).ok_or_else(|| {
        let all: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        Problem::bad(format!("no such reason: {name:?}; it is one of {}", all.join(", ")))
    })
}

/// A time, or how long ago: `2026-01-31T12:00`, with seconds, with a `Z`, or `15m`, `2h`, `7d`. Times are in UTC.
fn time(name: &str, text: &str, now: SystemTime) -> Result<SystemTime, Problem> {
    let invalid = || {
        Problem::bad(format!(
            "{name} is a time such as 2026-01-31T12:00, or how long ago, such as 2h: {text:?}"
        ))
    };
    if let Ok(ago) = humantime::parse_duration(text) {
        return now.checked_sub(ago.min(Duration::from_hours(24 * 3_660))).ok_or_else(invalid);
    }
    let with_seconds =
        if text.len() == "2026-01-31T12:00".len() { format!("{text}:00") } else { text.to_owned() };
    humantime::parse_rfc3339_weak(&with_seconds).map_err(|_| invalid())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn filter(query: &str) -> Result<Filter, Problem> {
        Filter::parse(&Params::of_query(query).unwrap(), None)
    }

    #[test]
    fn a_link_keeps_the_filter_and_begins_at_the_first_page() {
        let all = filter("topic=a%26b&status=failed&before=7&foreign=1").unwrap();
        assert_eq!(all.query_with("group", "g 1"), "?status=failed&topic=a%26b&group=g%201");
        assert_eq!(all.query_with("before", "9"), "?status=failed&topic=a%26b&before=9");
        assert_eq!(all.query_with("topic", ""), "?status=failed");
        assert_eq!(all.first_page(), "?status=failed&topic=a%26b");
    }

    #[test]
    fn bad_parameters_are_named() {
        for query in [
            "status=x",
            "reason=x",
            "since=x",
            "until=2026-99-01T00:00",
            "before=x",
            "per_page=0",
            "per_page=201",
            "per_page=-1",
            "side=x",
            "since=99999999999999999999d",
        ] {
            let Err(Problem::Bad(text)) = filter(query) else { panic!("{query} was accepted") };
            assert!(text.contains(query.split('=').next().unwrap()), "{query}: {text}");
        }
    }

    #[test]
    fn times_are_absolute_or_ago() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        assert_eq!(time("since", "15m", now).unwrap(), now - Duration::from_secs(900));
        for text in ["2001-09-09T01:46", "2001-09-09T01:46:00", "2001-09-09T01:46:00Z"] {
            assert_eq!(time("since", text, now).unwrap(), now - Duration::from_secs(40), "{text}");
        }
    }
}
