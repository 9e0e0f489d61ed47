//! What an act will touch, before it is done.

use std::time::SystemTime;

use askama::Template;
use axum::response::Response;
use cap_core::monitor::Row;
use cap_core::storage::{Side, Status};

use super::lines::MessageLine;
use super::shell::{Shell, page};
use crate::data::{Filter, within};
use crate::request::{Params, Problem};
use crate::text::{Amount, Text, iso};
use crate::web::{ActForm, Reader};

/// How many messages a preview shows.
const SHOWN: usize = 10;
/// The most messages that are counted before an act.
const COUNTED: usize = 10_000;
/// The most messages that one act names.
const MOST_IDS: usize = 1_000;

#[derive(Debug, Template)]
#[template(path = "preview.html")]
struct PreviewPage {
    shell: Shell,
    t: &'static Text,
    explanation: &'static str,
    button: &'static str,
    act: Act,
    amount: Amount,
    lines: Vec<MessageLine>,
    has_group: bool,
    has_due: bool,
    has_more: bool,
    hidden: Vec<(&'static str, String)>,
    back: String,
    back_href: String,
}

/// What is done to messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Rerun,
    Delete,
    Cancel,
}

/// Which messages an act is about.
#[derive(Debug)]
pub(crate) enum Target {
    /// These rows of one side. `failed` restricts it to those that are still failed.
    Rows { side: Side, ids: Vec<i64>, failed: bool },
    /// All that match.
    Matching(Filter),
}

impl Act {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rerun => "rerun",
            Self::Delete => "delete",
            Self::Cancel => "cancel",
        }
    }

    fn parse(name: &str) -> Result<(Self, bool), Problem> {
        Ok(match name {
            "rerun" => (Self::Rerun, false),
            "delete" => (Self::Delete, false),
            "cancel" => (Self::Cancel, false),
            "rerun-all" => (Self::Rerun, true),
            "delete-all" => (Self::Delete, true),
            other => return Err(Problem::bad(format!("no such act: {other:?}"))),
        })
    }
}

/// The act and its target, as a form says.
pub(super) fn wanted(form: &Params) -> Result<(Act, Target), Problem> {
    let (act, is_all) = Act::parse(form.get("do").unwrap_or_default())?;
    let filter = Filter::parse(form, None)?;
    if is_all {
        // A button for all exists only where a status narrows the list: see the kinds of lists.
        if form.get("status").is_none() {
            return Err(Problem::bad("an act on all that match needs a status"));
        }
        return Ok((act, Target::Matching(filter)));
    }
    let ids: Result<Vec<i64>, Problem> = form
        .all("id")
        .map(|id| id.parse().map_err(|_| Problem::bad(format!("not a row id: {id:?}"))))
        .collect();
    let ids = ids?;
    if ids.len() > MOST_IDS {
        return Err(Problem::bad(format!("at most {MOST_IDS} messages can be named at once")));
    }
    let failed = matches!(form.get("status"), Some("failed" | "parked" | "cancelled"));
    Ok((act, Target::Rows { side: filter.side, ids, failed }))
}

pub(super) async fn show(ActForm { reader, form }: ActForm) -> Result<Response, Problem> {
    let (act, target) = wanted(&form)?;
    let t = reader.context.text();
    let (rows, amount, hidden) = match &target {
        Target::Rows { side, ids, .. } => {
            let rows = named(&reader, *side, ids).await?;
            let amount = Amount { count: ids.len() as u64, is_capped: false };
            (rows, amount, fields_of_rows(&form, act, ids))
        }
        Target::Matching(filter) => {
            let matching = filter.apply(reader.messages());
            let rows = within(matching.clone().limit(SHOWN).list()).await?;
            let counted = within(matching.limit(COUNTED + 1).count()).await?;
            let is_capped = counted > COUNTED as u64;
            let amount = Amount { count: counted.min(COUNTED as u64), is_capped };
            (rows, amount, fields_of_all(filter, act))
        }
    };
    let shell = Shell::new(&reader, "parked").await;
    page(&PreviewPage {
        explanation: match act {
            Act::Rerun => t.preview_rerun,
            Act::Delete => t.preview_delete,
            Act::Cancel => t.preview_cancel,
        },
        button: match act {
            Act::Rerun => t.do_rerun,
            Act::Delete => t.do_delete,
            Act::Cancel => t.do_cancel,
        },
        has_more: amount.count > rows.len() as u64,
        has_group: rows.iter().any(|row| row.side == Side::Inbox),
        has_due: rows.iter().any(|row| row.status == Status::Delayed),
        lines: MessageLine::all(&rows, &reader),
        back_href: reader.context.url(&back(&form)),
        back: back(&form),
        act,
        amount,
        hidden,
        shell,
        t,
    })
}

async fn named(reader: &Reader, side: Side, ids: &[i64]) -> Result<Vec<Row>, Problem> {
    let messages = reader.messages().side(side);
    let mut rows = Vec::new();
    for id in ids.iter().take(SHOWN) {
        rows.extend(within(messages.get(*id)).await?);
    }
    Ok(rows)
}

fn fields_of_rows(form: &Params, act: Act, ids: &[i64]) -> Vec<(&'static str, String)> {
    let mut fields = vec![("do", act.name().to_owned())];
    for name in ["side", "status"] {
        fields.extend(form.get(name).map(|value| (name, value.to_owned())));
    }
    fields.extend(ids.iter().map(|id| ("id", id.to_string())));
    fields
}

/// What arrives after the preview is not acted on: the selection ends now.
fn fields_of_all(filter: &Filter, act: Act) -> Vec<(&'static str, String)> {
    let mut fields = filter.fields();
    if !fields.iter().any(|(name, _)| *name == "until") {
        fields.push(("until", iso(SystemTime::now())));
    }
    fields.push(("do", format!("{}-all", act.name())));
    fields
}

/// The page to go back to: a path of ours, or the overview.
pub(super) fn back(form: &Params) -> String {
    let back = form.get("back").unwrap_or("/");
    let is_ours = back.starts_with('/')
        && !back.starts_with("//")
        && !back.contains(['\\', '\r', '\n', '#'])
        && back.chars().all(|c| !c.is_control() && c.is_ascii());
    if is_ours { back.to_owned() } else { "/".to_owned() }
}
