//! What the API returns and takes. Ids are texts, as a browser's numbers lose their last digits.

use cap_core::monitor::{FailedAttempt, Row};
use cap_core::storage::Side;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::data::status_name;
use crate::payload::{Body, Shown};
use crate::text::iso;
use crate::web::Reader;

/// A page of messages, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessagePage {
    pub(super) items: Vec<MessageItem>,
    /// The parameter `before` of the next page; null after the last one.
    pub(super) next: Option<String>,
}

/// A message in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageItem {
    /// The row id, which names the message in every other call.
    id: String,
    /// `published` or `received`.
    side: &'static str,
    topic: String,
    /// The receiving group; null for a published message.
    group: Option<String>,
    /// The id that its sender gave it.
    message_id: Option<String>,
    /// The version of the bus that it belongs to.
    version: String,
    /// `scheduled`, `delayed`, `retrying`, `failed` or `succeeded`.
    status: &'static str,
    /// Why, such as `exhausted`; null if there is nothing to say.
    reason: Option<&'static str>,
    /// How many attempts have failed.
    attempts: u32,
    /// How often an operator has run it again.
    reruns: u32,
    /// When it was stored.
    added: String,
    /// When it is due next, or until when a node has it.
    due: Option<String>,
    /// When it will be deleted.
    expires: Option<String>,
    /// The node that is working on it.
    node: Option<String>,
    last_error: Option<String>,
}

/// A message with everything that is stored of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageDetail {
    #[serde(flatten)]
    item: MessageItem,
    headers: Vec<Header>,
    /// The payload as text, exactly as it is stored except for masks; null if there is none, or if it is no text.
    payload: Option<String>,
    /// `json`, `text`, `binary`, `empty` or `masked`.
    payload_kind: &'static str,
    /// Whether a part of the payload is masked. It then cannot be edited without the right to unmask.
    is_masked: bool,
    failed_attempts: Vec<AttemptItem>,
}

/// A header.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Header {
    name: String,
    value: Option<String>,
}

/// A failed attempt.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttemptItem {
    /// From 1.
    number: u32,
    at: String,
    node: String,
    error: String,
    /// When the next one was due; null if it was the last.
    next: Option<String>,
}

/// The messages that an act is about.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowIds {
    /// At most 10,000 row ids.
    pub(super) ids: Vec<String>,
    /// Whether messages that are not failed any more are skipped. Default: true for a re-run and a deletion.
    pub(super) only_failed: Option<bool>,
}

/// A new payload.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPayload {
    /// The text that is stored exactly like this.
    pub(super) payload: String,
}

/// What an act has done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Done {
    pub(super) count: u64,
    /// The row ids of the messages that it had an effect on.
    pub(super) ids: Vec<String>,
}

/// The numbers of the overview.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Overview {
    pub(super) at: String,
    /// Null if the storage does not answer, or takes too long to count.
    pub(super) counts: Option<Vec<CountItem>>,
    /// Whether there are more than 10,000 rows of some kind, so that each count is a lower bound.
    pub(super) is_capped: bool,
    /// The components of this process's bus; empty if the dashboard runs without one.
    pub(super) components: Vec<ComponentItem>,
}

/// How many messages there are of a kind. Messages that succeeded at the first attempt are not counted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CountItem {
    pub(super) side: &'static str,
    pub(super) group: Option<String>,
    pub(super) status: &'static str,
    pub(super) count: u64,
}

/// A part of the bus that is up or down.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ComponentItem {
    pub(super) name: String,
    pub(super) is_up: bool,
    pub(super) since: String,
    pub(super) error: Option<String>,
}

/// Parked messages of one group and topic, with errors of one kind.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FailureItem {
    pub(super) side: &'static str,
    pub(super) group: Option<String>,
    pub(super) topic: String,
    pub(super) reason: Option<&'static str>,
    /// The error with `#` for numbers and ids.
    pub(super) error: String,
    /// A part that all of these errors have, for the parameter `error` of the list.
    pub(super) common_part: String,
    pub(super) count: u64,
    /// When the oldest and the newest of them were stored.
    pub(super) first: String,
    pub(super) last: String,
    /// The row id of the newest one.
    pub(super) sample: String,
}

/// The kinds of failures, the most frequent first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failures {
    pub(super) items: Vec<FailureItem>,
    /// Whether there are more parked messages than were looked at: the newest 2,000, for at most four seconds.
    pub(super) is_partial: bool,
}

/// An act of a user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActItem {
    /// Its number in the audit.
    pub(super) id: String,
    pub(super) at: String,
    pub(super) who: String,
    /// `rerun`, `edit`, `delete` or `cancel`.
    pub(super) what: String,
    pub(super) side: &'static str,
    pub(super) count: u64,
    /// The first row ids.
    pub(super) ids: Vec<String>,
    /// The payload before an edit, at most 64 KiB of it; null if there is none, or if it is no text.
    pub(super) former_payload: Option<String>,
}

/// An error.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "it describes what the layer for problems writes")]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "it describes what the layer for problems writes")]
pub(crate) struct ErrorDetail {
    /// A stable name, such as `bad-request`.
    code: String,
    /// What happened and what to do.
    message: String,
}

pub(super) fn side_name(side: Side) -> &'static str {
    if side == Side::Inbox { "received" } else { "published" }
}

impl MessageItem {
    pub(super) fn new(row: &Row, shown: &Shown) -> Self {
        Self {
            id: row.id.to_string(),
            side: side_name(row.side),
            topic: row.name.clone(),
            group: (row.side == Side::Inbox).then(|| row.group.to_string()),
            message_id: row.message.id().map(str::to_owned),
            version: row.version.clone(),
            status: status_name(row.status),
            reason: row.reason.map(cap_core::storage::Reason::as_str),
            attempts: row.attempts,
            reruns: row.reruns,
            added: iso(row.added),
            due: row.due.map(iso),
            expires: row.expires.map(iso),
            node: row.owner.clone(),
            last_error: shown.error.clone(),
        }
    }
}

impl MessageDetail {
    pub(super) fn new(row: &Row, attempts: Vec<FailedAttempt>, reader: &Reader) -> Self {
        let shown = reader.shown(row);
        let error = |error: &str| Shown::error(error, &reader.app.masks, reader.unmasks()).to_owned();
        let attempt = |attempt: FailedAttempt| AttemptItem {
            number: attempt.number,
            at: iso(attempt.at),
            error: error(&attempt.error),
            node: attempt.node,
            next: attempt.next.map(iso),
        };
        let headers =
            shown.headers.iter().map(|(name, value)| Header { name: name.clone(), value: value.clone() });
        let (payload_kind, payload) = match &shown.body {
            Body::Empty => ("empty", None),
            Body::Json(text) => ("json", Some(text.clone())),
            Body::Text(text) => ("text", Some(text.clone())),
            Body::Binary(_) => ("binary", None),
            Body::Hidden => ("masked", None),
        };
        Self {
            item: MessageItem::new(row, &shown),
            headers: headers.collect(),
            payload,
            payload_kind,
            is_masked: shown.is_masked,
            failed_attempts: attempts.into_iter().map(attempt).collect(),
        }
    }
}
