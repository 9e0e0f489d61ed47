//! Parked messages by what their errors are about.

use std::fmt::Write as _;
use std::time::SystemTime;

use askama::Template;
use axum::response::Response;
use cap_core::storage::Side;

use super::lines::{href, reason_label, side_name};
use super::shell::{Shell, page};
use crate::data::{Filter, encoded};
use crate::request::Problem;
use crate::text::{Stamp, Text, grouped};
use crate::web::{FailureKind, Reader, SCANNED_ROWS, failure_kinds};

#[derive(Debug, Template)]
#[template(path = "failures.html")]
struct FailuresPage {
    shell: Shell,
    t: &'static Text,
    sides: [(&'static str, String, bool); 2],
    kinds: Vec<KindLine>,
    /// How many messages were looked at, if there are more.
    looked_at: Option<String>,
}

#[derive(Debug)]
struct KindLine {
    error: String,
    group: String,
    topic: String,
    reason: Option<&'static str>,
    count: String,
    /// The share of the most frequent kind, in hundredths.
    share: u64,
    first: Stamp,
    last: Stamp,
    /// The messages of this kind.
    href: String,
    sample: String,
}

pub(super) async fn show(reader: Reader) -> Result<Response, Problem> {
    let filter = Filter::parse(&reader.query, None)?.parked();
    let (kinds, stopped) = failure_kinds(&reader, &filter.apply(reader.messages())).await?;
    let (t, now) = (reader.context.text(), SystemTime::now());
    let most = kinds.first().map_or(1, |kind| kind.count.max(1));
    let base = &reader.context.base;
    let side = |side, label| {
        let query = filter.query_with("side", side_name(side));
        (label, format!("{base}/failures{query}"), filter.side == side)
    };
    page(&FailuresPage {
        sides: [side(Side::Inbox, t.received), side(Side::Outbox, t.published)],
        kinds: kinds.iter().map(|kind| KindLine::new(kind, most, base, now, t)).collect(),
        looked_at: stopped.map(|_| grouped(SCANNED_ROWS as u64)),
        shell: Shell::new(&reader, "failures").await,
        t,
    })
}

impl KindLine {
    fn new(kind: &FailureKind, most: u64, base: &str, now: SystemTime, t: &'static Text) -> Self {
        let mut query = format!("?side={}&topic={}", side_name(kind.side), encoded(&kind.topic));
        for (name, value) in [
            ("group", kind.group.as_str()),
            ("reason", kind.reason.map_or("", cap_core::storage::Reason::as_str)),
            ("error", kind.common.as_str()),
        ] {
            if !value.is_empty() {
                let _ = write!(query, "&{name}={}", encoded(value));
            }
        }
        Self {
            error: kind.error.clone(),
            group: kind.group.clone(),
            topic: kind.topic.clone(),
            reason: kind.reason.map(|reason| reason_label(reason, t)),
            count: grouped(kind.count),
            share: kind.count * 100 / most,
            first: Stamp::new(kind.first, now, t),
            last: Stamp::new(kind.last, now, t),
            href: format!("{base}/parked{query}"),
            sample: href(base, kind.side, kind.sample),
        }
    }
}
