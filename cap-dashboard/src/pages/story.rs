//! Everything that belongs to one correlation id, in one list with times.

use std::time::{Duration, SystemTime};

use askama::Template;
use axum::response::Response;
use cap_core::message::headers::names;
use cap_core::monitor::Row;

use super::lines::{StatusLabel, href, side_name};
use super::shell::{Shell, page};
use crate::data::within;
use crate::payload::Shown;
use crate::request::Problem;
use crate::text::{Stamp, Text};
use crate::web::{Reader, scan};

/// How long after its beginning a story is followed.
const FOLLOWED_FOR: Duration = Duration::from_hours(1);
/// How much earlier than the first message a clock may have stored another one.
const CLOCKS_DIFFER_BY: Duration = Duration::from_mins(1);
/// The most messages of a story.
const MOST: usize = 200;

#[derive(Debug, Template)]
#[template(path = "story.html")]
struct StoryPage {
    shell: Shell,
    t: &'static Text,
    correlation: String,
    events: Vec<Event>,
    is_cut: bool,
}

/// One thing that happened.
#[derive(Debug)]
struct Event {
    at: SystemTime,
    stamp: Stamp,
    /// `published`, `received` or `attempt`.
    kind: &'static str,
    topic: String,
    group: String,
    href: String,
    /// The state of the message now.
    status: Option<StatusLabel>,
    error: Option<String>,
    number: u32,
}

pub(super) async fn show(reader: Reader) -> Result<Response, Problem> {
    let correlation =
        reader.query.get("id").ok_or_else(|| Problem::bad("id is the correlation id of a story"))?;
    let (rows, is_cut) = rows(&reader, correlation).await?;
    let mut events = Vec::new();
    for row in &rows {
        events.extend(events_of(&reader, row).await?);
    }
    events.sort_by_key(|event| event.at);
    page(&StoryPage {
        shell: Shell::new(&reader, "search").await,
        t: reader.context.text(),
        correlation: correlation.to_owned(),
        events,
        is_cut,
    })
}

/// The first message and those that name it, as far as they were stored within the hour after it.
async fn rows(reader: &Reader, correlation: &str) -> Result<(Vec<Row>, bool), Problem> {
    let mut rows = Vec::new();
    for messages in [reader.messages().published(), reader.messages().received()] {
        rows.extend(within(messages.find(correlation)).await?);
    }
    let Some(began) = rows.iter().map(|row| row.added).min() else { return Ok((rows, false)) };
    let mut is_cut = false;
    for messages in [reader.messages().published(), reader.messages().received()] {
        let near = messages.since(began - CLOCKS_DIFFER_BY).until(began + FOLLOWED_FOR);
        let stopped = scan(reader, &near, |row, _| {
            let belongs = row.message.headers.get(names::CORRELATION_ID) == Some(correlation);
            let is_known = rows.iter().any(|known| (known.side, known.id) == (row.side, row.id));
            if belongs && !is_known && rows.len() < MOST {
                rows.push(row);
            }
        });
        is_cut |= stopped.await?.is_some();
    }
    Ok((rows, is_cut))
}

async fn events_of(reader: &Reader, row: &Row) -> Result<Vec<Event>, Problem> {
    let (t, now) = (reader.context.text(), SystemTime::now());
    let event = |at: SystemTime, kind| Event {
        at,
        stamp: Stamp::new(at, now, t),
        kind,
        topic: row.name.clone(),
        group: row.group.to_string(),
        href: href(&reader.context.base, row.side, row.id),
        status: None,
        error: None,
        number: 0,
    };
    let mut events =
        vec![Event { status: Some(StatusLabel::of(row, now, t)), ..event(row.added, side_name(row.side)) }];
    if row.attempts > 0 {
        for attempt in within(reader.messages().side(row.side).attempts(row.id)).await? {
            let error = Shown::error(&attempt.error, &reader.app.masks, reader.unmasks()).to_owned();
            events.push(Event { error: Some(error), number: attempt.number, ..event(attempt.at, "attempt") });
        }
    }
    Ok(events)
}
