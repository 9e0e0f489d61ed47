//! The lists of messages: published, received, delayed, parked.

use askama::Template;
use axum::response::Response;
use cap_core::storage::{Reason, Side};

use super::lines::{MessageLine, reason_label, side_name};
use super::shell::{Shell, page};
use crate::data::{Filter, within};
use crate::request::{Params, Problem};
use crate::text::Text;
use crate::web::Reader;

/// A list of messages.
#[derive(Debug, Template)]
#[template(path = "list.html")]
struct List {
    shell: Shell,
    t: &'static Text,
    title: &'static str,
    lead: &'static str,
    /// The path of this list.
    path: String,
    tabs: Vec<Tab>,
    /// The sides to choose from; empty if there is one.
    sides: Vec<Tab>,
    fields: Fields,
    reasons: Vec<Choice>,
    lines: Vec<MessageLine>,
    has_group: bool,
    has_due: bool,
    older: Option<String>,
    newest: Option<String>,
    acts: Acts,
    hidden: Vec<(&'static str, String)>,
    notice: Option<String>,
    is_filtered: bool,
    empty: &'static str,
}

/// A link to the same list with another filter.
#[derive(Debug)]
struct Tab {
    label: &'static str,
    href: String,
    is_current: bool,
    class: &'static str,
}

/// A choice of a selection field.
#[derive(Debug)]
struct Choice {
    value: &'static str,
    label: &'static str,
    is_selected: bool,
}

/// What stands in the fields of the filter.
#[derive(Debug)]
struct Fields {
    topic: String,
    group: String,
    error: String,
    since: String,
    until: String,
    version: String,
    status: String,
    side: String,
}

/// What a user may do with the messages of the list.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a button")]
struct Acts {
    reruns: bool,
    deletes: bool,
    cancels: bool,
    /// Whether all that match can be acted on.
    all: bool,
}

impl Acts {
    const NONE: Self = Self { reruns: false, deletes: false, cancels: false, all: false };

    fn any(self) -> bool {
        self.reruns || self.deletes || self.cancels
    }
}

/// The kinds of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Published,
    Received,
    Delayed,
    Parked,
}

pub(super) async fn published(reader: Reader) -> Result<Response, Problem> {
    show(reader, Kind::Published).await
}

pub(super) async fn received(reader: Reader) -> Result<Response, Problem> {
    show(reader, Kind::Received).await
}

pub(super) async fn delayed(reader: Reader) -> Result<Response, Problem> {
    show(reader, Kind::Delayed).await
}

pub(super) async fn parked(reader: Reader) -> Result<Response, Problem> {
    show(reader, Kind::Parked).await
}

async fn show(reader: Reader, kind: Kind) -> Result<Response, Problem> {
    let filter = kind.filter(&reader.query)?;
    // One more than a page tells whether there is another one.
    let selection = filter.apply(reader.messages()).limit(filter.per_page + 1);
    let mut rows = within(selection.list()).await?;
    let has_older = rows.len() > filter.per_page;
    rows.truncate(filter.per_page);
    let t = reader.context.text();
    let path = format!("{}/{}", reader.context.base, kind.section());
    let last = rows.last().map(|row| row.id.to_string()).unwrap_or_default();
    let shell = Shell::new(&reader, kind.section()).await;
    let acts = if shell.may_act { kind.acts() } else { Acts::NONE };
    let is_filtered = filter.is_narrowed();
    page(&List {
        older: has_older.then(|| format!("{path}{}", filter.query_with("before", &last))),
        newest: filter.is_later_page().then(|| format!("{path}{}", filter.first_page())),
        tabs: kind.tabs(&filter, &path, t),
        sides: kind.sides(&filter, &path, t),
        reasons: kind.reasons(&filter, t),
        fields: Fields::of(&filter),
        lines: MessageLine::all(&rows, &reader),
        has_group: filter.side == Side::Inbox,
        has_due: kind == Kind::Delayed,
        hidden: kind.hidden(&filter),
        notice: notice(&reader.query, t),
        is_filtered,
        empty: kind.empty(is_filtered || filter.is_later_page(), t),
        title: kind.title(t),
        lead: kind.lead(t),
        acts,
        path,
        shell,
        t,
    })
}

impl Kind {
    fn section(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Received => "received",
            Self::Delayed => "delayed",
            Self::Parked => "parked",
        }
    }

    fn filter(self, params: &Params) -> Result<Filter, Problem> {
        match self {
            Self::Published => Filter::parse(params, Some(Side::Outbox)),
            Self::Received => Filter::parse(params, Some(Side::Inbox)),
            Self::Delayed => Filter::parse(params, Some(Side::Outbox)).map(Filter::delayed),
            Self::Parked => {
                let filter = Filter::parse(params, None)?;
                // Who asks for cancelled messages gets these, as they are not parked.
                Ok(if filter.value("status") == "cancelled" { filter } else { filter.parked() })
            }
        }
    }

    fn title(self, t: &'static Text) -> &'static str {
        match self {
            Self::Published => t.published,
            Self::Received => t.received,
            Self::Delayed => t.delayed,
            Self::Parked => t.parked,
        }
    }

    fn lead(self, t: &'static Text) -> &'static str {
        match self {
            Self::Published => t.published_lead,
            Self::Received => t.received_lead,
            Self::Delayed => t.delayed_lead,
            Self::Parked => t.parked_lead,
        }
    }

    fn empty(self, is_filtered: bool, t: &'static Text) -> &'static str {
        match self {
            _ if is_filtered => t.nothing_matches,
            Self::Parked => t.nothing_parked,
            _ => t.no_messages_yet,
        }
    }

    fn acts(self) -> Acts {
        match self {
            Self::Published | Self::Received => Acts { reruns: true, deletes: true, ..Acts::NONE },
            Self::Delayed => Acts { reruns: true, cancels: true, ..Acts::NONE },
            Self::Parked => Acts { reruns: true, deletes: true, all: true, ..Acts::NONE },
        }
    }

    /// What a form of this list carries to say which messages are meant.
    fn hidden(self, filter: &Filter) -> Vec<(&'static str, String)> {
        let mut fields = filter.fields();
        fields.retain(|(name, _)| *name != "status");
        let status = match self {
            Self::Parked if filter.value("status") != "cancelled" => "parked",
            Self::Delayed => "delayed",
            _ => filter.value("status"),
        };
        if !status.is_empty() {
            fields.push(("status", status.to_owned()));
        }
        fields
    }

    fn tabs(self, filter: &Filter, path: &str, t: &'static Text) -> Vec<Tab> {
        let names: &[(&'static str, &'static str)] = match self {
            Self::Delayed => &[],
            Self::Parked => &[("", t.parked), ("cancelled", t.cancelled)],
            Self::Published => &[
                ("", t.all),
                ("scheduled", t.scheduled),
                ("delayed", t.delayed),
                ("retrying", t.retrying),
                ("failed", t.failed),
                ("succeeded", t.succeeded),
            ],
            Self::Received => &[
                ("", t.all),
                ("scheduled", t.scheduled),
                ("retrying", t.retrying),
                ("failed", t.failed),
                ("succeeded", t.succeeded),
            ],
        };
        let tab = |(name, label): &(&'static str, &'static str)| Tab {
            label,
            href: format!("{path}{}", filter.query_with("status", name)),
            is_current: filter.value("status") == *name,
            class: name,
        };
        names.iter().map(tab).collect()
    }

    fn sides(self, filter: &Filter, path: &str, t: &'static Text) -> Vec<Tab> {
        if self != Self::Parked {
            return Vec::new();
        }
        let tab = |side, label| Tab {
            label,
            href: format!("{path}{}", filter.query_with("side", side_name(side))),
            is_current: filter.side == side,
            class: "",
        };
        vec![tab(Side::Inbox, t.received), tab(Side::Outbox, t.published)]
    }

    fn reasons(self, filter: &Filter, t: &'static Text) -> Vec<Choice> {
        if self == Self::Delayed {
            return Vec::new();
        }
        let choice = |reason: Reason| Choice {
            value: reason.as_str(),
            label: reason_label(reason, t),
            is_selected: filter.value("reason") == reason.as_str(),
        };
        Reason::ALL.into_iter().map(choice).collect()
    }
}

impl Fields {
    fn of(filter: &Filter) -> Self {
        let value = |name| filter.value(name).to_owned();
        Self {
            topic: value("topic"),
            group: value("group"),
            error: value("error"),
            since: value("since"),
            until: value("until"),
            version: value("version"),
            status: value("status"),
            side: value("side"),
        }
    }
}

/// What an act has done, as the redirect after it says.
pub(super) fn notice(query: &Params, t: &'static Text) -> Option<String> {
    let count: u64 = query.number("count").ok().flatten()?;
    let done = match query.get("done")? {
        "rerun" => t.done_rerun,
        "delete" => t.done_delete,
        "cancel" => t.done_cancel,
        "edit" if count > 0 => return Some(t.done_edit.to_owned()),
        "edit" => "",
        _ => return None,
    };
    Some(if count == 0 { t.done_none.to_owned() } else { format!("{}: {done}", crate::text::grouped(count)) })
}
