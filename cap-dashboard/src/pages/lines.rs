//! Messages as lines of a list.

use std::time::SystemTime;

use cap_core::monitor::Row;
use cap_core::storage::{Reason, Side, Status};

use crate::data::status_name;
use crate::text::{Stamp, Text};
use crate::web::Reader;

/// The most characters of an error in a list.
const ERROR_SHOWN: usize = 160;

/// A message as a line of a list.
#[derive(Debug)]
pub(crate) struct MessageLine {
    pub(crate) id: i64,
    pub(crate) href: String,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) message_id: String,
    pub(crate) status: StatusLabel,
    pub(crate) attempts: u32,
    pub(crate) reruns: u32,
    pub(crate) added: Stamp,
    pub(crate) due: Option<Stamp>,
    pub(crate) error: Option<String>,
}

/// A status with its class and its name.
#[derive(Debug)]
pub(crate) struct StatusLabel {
    pub(crate) class: &'static str,
    pub(crate) label: &'static str,
    pub(crate) reason: Option<&'static str>,
}

impl MessageLine {
    pub(crate) fn new(row: &Row, reader: &Reader, now: SystemTime) -> Self {
        let t = reader.context.text();
        let shown = reader.shown(row);
        Self {
            id: row.id,
            href: href(&reader.context.base, row.side, row.id),
            topic: row.name.clone(),
            group: row.group.to_string(),
            message_id: row.message.id().unwrap_or_default().to_owned(),
            status: StatusLabel::of(row, now, t),
            attempts: row.attempts,
            reruns: row.reruns,
            added: Stamp::new(row.added, now, t),
            due: row.due.filter(|_| row.owner.is_none()).map(|due| Stamp::new(due, now, t)),
            error: shown.error.map(|error| shortened(&error)),
        }
    }

    pub(crate) fn all(rows: &[Row], reader: &Reader) -> Vec<Self> {
        let now = SystemTime::now();
        rows.iter().map(|row| Self::new(row, reader, now)).collect()
    }
}

impl StatusLabel {
    pub(crate) fn of(row: &Row, now: SystemTime, t: &'static Text) -> Self {
        let reason = row.reason.map(|reason| reason_label(reason, t));
        let is_leased = row.owner.is_some() && row.due.is_some_and(|due| due > now);
        let is_running = is_leased && matches!(row.status, Status::Scheduled | Status::Retrying);
        let (class, label) = match row.status {
            _ if row.reason == Some(Reason::Cancelled) => ("cancelled", t.cancelled),
            _ if is_running => ("running", t.running),
            Status::Scheduled => ("scheduled", t.scheduled),
            Status::Delayed => ("delayed", t.delayed),
            Status::Retrying => ("retrying", t.retrying),
            Status::Failed => ("failed", t.failed),
            Status::Succeeded => ("succeeded", t.succeeded),
            other => (status_name(other), t.other),
        };
        Self { class, label, reason: reason.filter(|_| row.reason != Some(Reason::Cancelled)) }
    }
}

/// The address of the page of a message.
pub(crate) fn href(base: &str, side: Side, id: i64) -> String {
    format!("{base}/message/{}/{id}", side_name(side))
}

pub(crate) fn side_name(side: Side) -> &'static str {
    match side {
        Side::Inbox => "received",
        Side::Outbox => "published",
    }
}

pub(crate) fn reason_label(reason: Reason, t: &'static Text) -> &'static str {
    match reason {
        Reason::Exhausted => t.reason_exhausted,
        Reason::Permanent => t.reason_permanent,
        Reason::MissingHeaders => t.reason_missing_headers,
        Reason::Undecodable => t.reason_undecodable,
        Reason::NoSubscriber => t.reason_no_subscriber,
        Reason::Unrouted => t.reason_unrouted,
        Reason::Cancelled => t.reason_cancelled,
        Reason::Corrupt => t.reason_corrupt,
        Reason::IdConflict => t.reason_id_conflict,
        Reason::CallbackNotAllowed => t.reason_callback,
        Reason::NameMismatch => t.reason_name_mismatch,
        Reason::ProcessCrashed => t.reason_crashed,
        other => other.as_str(),
    }
}

fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(ERROR_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
