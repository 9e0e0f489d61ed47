//! What was done to which messages, and by whom.

use std::time::SystemTime;

use askama::Template;
use axum::response::Response;

use super::lines::{href, side_name};
use super::shell::{Shell, page};
use crate::data::Act;
use crate::request::Problem;
use crate::text::{Stamp, Text, grouped};
use crate::web::Reader;

#[derive(Debug, Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    t: &'static Text,
    acts: Vec<ActLine>,
}

#[derive(Debug)]
struct ActLine {
    at: Stamp,
    who: String,
    what: &'static str,
    class: &'static str,
    side: &'static str,
    count: String,
    ids: Vec<(i64, String)>,
}

pub(super) async fn show(reader: Reader) -> Result<Response, Problem> {
    let (t, now) = (reader.context.text(), SystemTime::now());
    let line = |act: Act| ActLine {
        at: Stamp::new(act.at, now, t),
        what: match act.what {
            "edit" => t.edit_and_rerun,
            "delete" => t.delete,
            "cancel" => t.cancel,
            _ => t.rerun,
        },
        class: if act.what == "delete" { "failed" } else { "scheduled" },
        side: side_name(act.side),
        count: grouped(act.count),
        ids: act.ids.iter().map(|id| (*id, href(&reader.context.base, act.side, *id))).collect(),
        who: act.who,
    };
    let acts = reader.app.audit.all().into_iter().map(line).collect();
    page(&AuditPage { shell: Shell::new(&reader, "audit").await, t, acts })
}
