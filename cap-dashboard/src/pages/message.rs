//! One message: state, payload, headers, attempts.

use std::fmt::Write as _;
use std::time::SystemTime;

use askama::Template;
use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use cap_core::message::headers::names;
use cap_core::monitor::Row;
use cap_core::storage::{Side, Status};

use super::lines::{StatusLabel, href, side_name};
use super::list::notice;
use super::shell::{Shell, page};
use crate::data::within;
use crate::payload::{Body, MASK, Piece, Shown, pieces, pretty};
use crate::request::Problem;
use crate::text::{Stamp, Text, bytes};
use crate::web::Reader;

/// The largest payload that is shown in full, in bytes.
const SHOWN_IN_FULL: usize = 256 * 1024;
/// How many bytes of a payload that is no text are shown.
const HEX_BYTES: usize = 256;

#[derive(Debug, Template)]
#[template(path = "message.html")]
struct MessagePage {
    shell: Shell,
    t: &'static Text,
    id: i64,
    side: &'static str,
    topic: String,
    group: String,
    message_id: String,
    correlation: String,
    kind: String,
    version: String,
    node: Option<String>,
    status: StatusLabel,
    attempts: u32,
    reruns: u32,
    added: Stamp,
    due: Option<Stamp>,
    expires: Option<Stamp>,
    size: String,
    error: Option<String>,
    payload: Payload,
    headers: Vec<HeaderLine>,
    timeline: Vec<AttemptLine>,
    siblings: Vec<Sibling>,
    acts: Acts,
    notice: Option<String>,
}

/// What is shown of a payload.
#[derive(Debug)]
enum Payload {
    Empty,
    Hidden,
    Json { pieces: Vec<Piece>, is_cut: bool, is_masked: bool },
    Text { text: String, is_cut: bool },
    Binary { hex: String },
}

#[derive(Debug)]
struct HeaderLine {
    name: String,
    value: Option<String>,
    is_masked: bool,
    /// Whether it is one of the bus's own.
    is_own: bool,
}

#[derive(Debug)]
struct AttemptLine {
    number: u32,
    at: Stamp,
    node: String,
    error: String,
    next: Option<Stamp>,
}

/// The same message in another group.
#[derive(Debug)]
struct Sibling {
    group: String,
    href: String,
    status: StatusLabel,
}

/// What this user may do with this message now.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a button")]
struct Acts {
    rerun: bool,
    rerun_label: &'static str,
    edit: bool,
    cancel: bool,
    delete: bool,
}

/// The row that a path names.
pub(super) async fn row_of(reader: &Reader, side: &str, id: &str) -> Result<Row, Problem> {
    let side = match side {
        "received" => Side::Inbox,
        "published" => Side::Outbox,
        _ => return Err(Problem::NotFound),
    };
    let id: i64 = id.parse().map_err(|_| Problem::bad(format!("not a row id: {id:?}")))?;
    within(reader.messages().side(side).get(id)).await?.ok_or(Problem::NotFound)
}

pub(super) async fn show(
    reader: Reader,
    Path((side, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let row = row_of(&reader, &side, &id).await?;
    let messages = reader.messages().side(row.side);
    let attempts = within(messages.attempts(row.id)).await?;
    let siblings = siblings(&reader, &row).await?;
    let (t, now) = (reader.context.text(), SystemTime::now());
    let shown = reader.shown(&row);
    let stamp = |time| Stamp::new(time, now, t);
    let error = |error: &str| Shown::error(error, &reader.app.masks, reader.unmasks()).to_owned();
    let timeline = attempts.into_iter().map(|attempt| AttemptLine {
        number: attempt.number,
        at: stamp(attempt.at),
        node: attempt.node,
        error: error(&attempt.error),
        next: attempt.next.map(stamp),
    });
    let section = if row.status == Status::Failed { "parked" } else { side_name(row.side) };
    let shell = Shell::new(&reader, section).await;
    page(&MessagePage {
        id: row.id,
        side: side_name(row.side),
        topic: row.name.clone(),
        group: row.group.to_string(),
        message_id: row.message.id().unwrap_or_default().to_owned(),
        correlation: row.message.headers.get(names::CORRELATION_ID).unwrap_or_default().to_owned(),
        kind: row.message.headers.get(names::MESSAGE_TYPE).unwrap_or_default().to_owned(),
        version: row.version.clone(),
        status: StatusLabel::of(&row, now, t),
        attempts: row.attempts,
        reruns: row.reruns,
        added: stamp(row.added),
        due: row.due.map(stamp),
        expires: row.expires.map(stamp),
        size: bytes(row.message.body.len()),
        timeline: timeline.collect(),
        acts: Acts::of(&row, &shown, shell.may_act, t),
        headers: headers(&shown),
        payload: Payload::of(&shown),
        error: shown.error,
        node: row.owner,
        notice: notice(&reader.query, t),
        siblings,
        shell,
        t,
    })
}

/// The payload as a file. Whatever it holds, the browser does not show it as a page.
pub(super) async fn download(
    reader: Reader,
    Path((side, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let row = row_of(&reader, &side, &id).await?;
    let content = match reader.shown(&row).body {
        Body::Hidden => return Err(Problem::Forbidden("unmask")),
        Body::Empty => Vec::new(),
        Body::Json(text) | Body::Text(text) => text.into_bytes(),
        Body::Binary(bytes) => bytes,
    };
    let mut response = content.into_response();
    let name = format!("attachment; filename=\"{}-{}.txt\"", side_name(row.side), row.id);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

async fn siblings(reader: &Reader, row: &Row) -> Result<Vec<Sibling>, Problem> {
    let Some(message_id) = row.message.id() else { return Ok(Vec::new()) };
    let (t, now) = (reader.context.text(), SystemTime::now());
    let rows = within(reader.messages().received().find(message_id)).await?;
    let others = rows.iter().filter(|other| (other.side, other.id) != (row.side, row.id));
    let sibling = |other: &Row| Sibling {
        group: other.group.to_string(),
        href: href(&reader.context.base, other.side, other.id),
        status: StatusLabel::of(other, now, t),
    };
    Ok(others.map(sibling).collect())
}

fn headers(shown: &Shown) -> Vec<HeaderLine> {
    let line = |(name, value): &(String, Option<String>)| HeaderLine {
        is_own: name.starts_with("cap-"),
        is_masked: value.as_deref() == Some(MASK),
        name: name.clone(),
        value: value.clone(),
    };
    shown.headers.iter().map(line).collect()
}

impl Payload {
    fn of(shown: &Shown) -> Self {
        match &shown.body {
            Body::Empty => Self::Empty,
            Body::Hidden => Self::Hidden,
            Body::Json(text) => {
                let (text, is_cut) = cut(text);
                let pieces = if is_cut {
                    vec![Piece { kind: "", text: text.to_owned() }]
                } else {
                    pieces(&pretty(text))
                };
                Self::Json { pieces, is_cut, is_masked: shown.is_masked }
            }
            Body::Text(text) => {
                let (text, is_cut) = cut(text);
                Self::Text { text: text.to_owned(), is_cut }
            }
            Body::Binary(bytes) => {
                let mut hex = String::with_capacity(HEX_BYTES * 3);
                for (at, byte) in bytes.iter().take(HEX_BYTES).enumerate() {
                    let separator = if at == 0 {
                        ""
                    } else if at % 16 == 0 {
                        "\n"
                    } else {
                        " "
                    };
                    let _ = write!(hex, "{separator}{byte:02x}");
                }
                Self::Binary { hex }
            }
        }
    }
}

/// The beginning of a text that is shown, and whether it is not all.
fn cut(text: &str) -> (&str, bool) {
    if text.len() <= SHOWN_IN_FULL {
        return (text, false);
    }
    let end = (0..=SHOWN_IN_FULL).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    (&text[..end], true)
}

impl Acts {
    fn of(row: &Row, shown: &Shown, may_act: bool, t: &'static Text) -> Self {
        let is_delayed = row.status == Status::Delayed;
        Self {
            rerun: may_act,
            rerun_label: if is_delayed { t.send_now } else { t.rerun },
            edit: may_act
                && !shown.is_masked
                && matches!(shown.body, Body::Json(_) | Body::Text(_) | Body::Empty),
            cancel: may_act && is_delayed && row.side == Side::Outbox,
            delete: may_act,
        }
    }
}
