//! Listing messages, and reading one.

use axum::Json;
use axum::extract::Path;
use cap_core::monitor::Row;
use cap_core::storage::Side;

use super::shapes::{ErrorBody, FailureItem, Failures, MessageDetail, MessageItem, MessagePage, side_name};
use crate::data::{Filter, within};
use crate::request::Problem;
use crate::text::iso;
use crate::web::{FailureKind, Reader, failure_kinds};

/// Messages, newest first, by filters. The next page begins after the key of the last message, so that pages stay stable
/// while messages come.
#[utoipa::path(
    get, path = "/messages/{side}", operation_id = "listMessages", tag = "messages",
    params(
        ("side" = String, Path, description = "`published` or `received`"),
        ("status" = Option<String>, Query, description = "`scheduled`, `delayed`, `retrying`, `failed`, `succeeded`, `parked` (failed and not cancelled) or `cancelled`"),
        ("reason" = Option<String>, Query, description = "such as `exhausted`"),
        ("topic" = Option<String>, Query, description = "exactly and in full"),
        ("group" = Option<String>, Query, description = "exactly and in full, with its version"),
        ("error" = Option<String>, Query, description = "a part of the last error"),
        ("since" = Option<String>, Query, description = "stored at this time or later: `2026-01-31T12:00:00Z`, or how long ago: `2h`"),
        ("until" = Option<String>, Query, description = "stored before this time"),
        ("version" = Option<String>, Query, description = "of this version; `all` for every one"),
        ("per_page" = Option<usize>, Query, minimum = 1, maximum = 200, description = "1 to 200; 50 by default"),
        ("before" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "a page", body = MessagePage),
        (status = 400, description = "an invalid parameter", body = ErrorBody),
        (status = 401, description = "no valid credentials", body = ErrorBody),
        (status = 404, description = "no such side", body = ErrorBody),
    ),
)]
pub(super) async fn list(reader: Reader, Path(side): Path<String>) -> Result<Json<MessagePage>, Problem> {
    let filter = Filter::parse(&reader.query, Some(side_of(&side)?))?;
    let selection = filter.apply(reader.messages()).limit(filter.per_page + 1);
    let mut rows = within(selection.list()).await?;
    let has_more = rows.len() > filter.per_page;
    rows.truncate(filter.per_page);
    let next = rows.last().filter(|_| has_more).map(|row| row.id.to_string());
    let items = rows.iter().map(|row| MessageItem::new(row, &reader.shown(row))).collect();
    Ok(Json(MessagePage { items, next }))
}

/// One message with its headers, payload and failed attempts.
#[utoipa::path(
    get, path = "/messages/{side}/{id}", operation_id = "getMessage", tag = "messages",
    params(
        ("side" = String, Path, description = "`published` or `received`"),
        ("id" = String, Path, description = "the row id"),
    ),
    responses(
        (status = 200, description = "the message", body = MessageDetail),
        (status = 400, description = "not a row id", body = ErrorBody),
        (status = 401, description = "no valid credentials", body = ErrorBody),
        (status = 404, description = "no such message", body = ErrorBody),
    ),
)]
pub(super) async fn show(
    reader: Reader,
    Path((side, id)): Path<(String, String)>,
) -> Result<Json<MessageDetail>, Problem> {
    let row = row_of(&reader, &side, &id).await?;
    let attempts = within(reader.messages().side(row.side).attempts(row.id)).await?;
    Ok(Json(MessageDetail::new(&row, attempts, &reader)))
}

/// Parked messages by what their errors are about, with numbers and ids taken out.
#[utoipa::path(
    get, path = "/failures/{side}", operation_id = "listFailures", tag = "messages",
    params(
        ("side" = String, Path, description = "`published` or `received`"),
        ("topic" = Option<String>, Query, description = "exactly and in full"),
        ("group" = Option<String>, Query, description = "exactly and in full, with its version"),
        ("since" = Option<String>, Query, description = "stored at this time or later: `2026-01-31T12:00:00Z`, or how long ago: `2h`"),
        ("until" = Option<String>, Query, description = "stored before this time"),
    ),
    responses(
        (status = 200, description = "the kinds", body = Failures),
        (status = 400, description = "an invalid parameter", body = ErrorBody),
        (status = 401, description = "no valid credentials", body = ErrorBody),
        (status = 404, description = "no such side", body = ErrorBody),
    ),
)]
pub(super) async fn failures(reader: Reader, Path(side): Path<String>) -> Result<Json<Failures>, Problem> {
    let filter = Filter::parse(&reader.query, Some(side_of(&side)?))?.parked();
    let (kinds, stopped) = failure_kinds(&reader, &filter.apply(reader.messages())).await?;
    let item = |kind: FailureKind| FailureItem {
        side: side_name(kind.side),
        group: (kind.side == Side::Inbox).then_some(kind.group),
        topic: kind.topic,
        reason: kind.reason.map(cap_core::storage::Reason::as_str),
        error: kind.error,
        common_part: kind.common,
        count: kind.count,
        first: iso(kind.first),
        last: iso(kind.last),
        sample: kind.sample.to_string(),
    };
    Ok(Json(Failures { items: kinds.into_iter().map(item).collect(), is_partial: stopped.is_some() }))
}

pub(super) fn side_of(name: &str) -> Result<Side, Problem> {
    match name {
        "published" => Ok(Side::Outbox),
        "received" => Ok(Side::Inbox),
        _ => Err(Problem::NotFound),
    }
}

pub(super) fn id_of(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| Problem::bad(format!("not a row id: {text:?}")))
}

pub(super) async fn row_of(reader: &Reader, side: &str, id: &str) -> Result<Row, Problem> {
    let (side, id) = (side_of(side)?, id_of(id)?);
    within(reader.messages().side(side).get(id)).await?.ok_or(Problem::NotFound)
}
