//! What was done to which messages, and by whom.

use std::time::SystemTime;

use askama::Template;
use axum::response::Response;
use cap_core::monitor::Act;

use super::lines::{href, side_name};
use super::shell::{Shell, page};
use crate::data::within;
use crate::payload::{Body, MASK, pretty};
use crate::request::Problem;
use crate::text::{Stamp, Text, grouped};
use crate::web::Reader;

/// The acts of a page.
const ACTS: usize = 100;
/// The most row ids that are shown of an act.
const IDS: usize = 12;
/// The most characters of a former payload that are shown.
const FORMER: usize = 20_000;

#[derive(Debug, Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    t: &'static Text,
    acts: Vec<ActLine>,
    older: Option<String>,
}

#[derive(Debug)]
struct ActLine {
    at: Stamp,
    who: String,
    what: String,
    class: &'static str,
    side: &'static str,
    count: String,
    ids: Vec<(i64, String)>,
    /// The payload before an edit.
    former: Option<String>,
}

pub(super) async fn show(reader: Reader) -> Result<Response, Problem> {
    let before = reader.query.number("before")?;
    let mut acts = within(reader.app.data.operator.acts(before, ACTS + 1)).await?;
    let has_older = acts.len() > ACTS;
    acts.truncate(ACTS);
    let last = acts.last().map(|act| act.id).unwrap_or_default();
    page(&AuditPage {
        shell: Shell::new(&reader, "audit").await,
        t: reader.context.text(),
        acts: acts.into_iter().map(|act| ActLine::new(act, &reader)).collect(),
        older: has_older.then(|| format!("{}/audit?before={last}", reader.context.base)),
    })
}

impl ActLine {
    fn new(act: Act, reader: &Reader) -> Self {
        let t = reader.context.text();
        let former = act.act.former_body.as_ref().map(|body| former(body, reader));
        Self {
            at: Stamp::new(act.at, SystemTime::now(), t),
            class: if act.act.what == "delete" { "failed" } else { "scheduled" },
            what: match act.act.what.as_str() {
                "rerun" => t.rerun.to_owned(),
                "edit" => t.edit_and_rerun.to_owned(),
                "delete" => t.delete.to_owned(),
                "cancel" => t.cancel.to_owned(),
                _ => act.act.what,
            },
            side: side_name(act.act.side),
            count: grouped(act.act.count),
            ids: act
                .act
                .ids
                .iter()
                .take(IDS)
                .map(|id| (*id, href(&reader.context.base, act.act.side, *id)))
                .collect(),
            former,
            who: act.act.who,
        }
    }
}

/// A payload before an edit, as this user may see it.
fn former(body: &[u8], reader: &Reader) -> String {
    let text = match Body::of(body, None, &reader.app.masks, reader.unmasks()).0 {
        Body::Json(text) => pretty(&text),
        Body::Text(text) => text,
        Body::Hidden => MASK.to_owned(),
        Body::Empty | Body::Binary(_) => String::new(),
    };
    text.chars().take(FORMER).collect()
}
