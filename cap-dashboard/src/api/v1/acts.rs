//! Re-running, editing, deleting and cancelling messages.

use axum::Json;
use axum::extract::Path;
use cap_core::Messages;
use cap_core::storage::Status;

use super::messages::{id_of, row_of, side_of};
use super::shapes::{Done, ErrorBody, NewPayload, RowIds};
use crate::data::within;
use crate::payload::{Body, is_json};
use crate::request::Problem;
use crate::web::{ActJson, Reader};

/// The most messages that one request names.
const MOST_IDS: usize = 10_000;

/// Re-runs messages: they are due at once, on any node, and their retries start anew. Messages that are being processed are
/// skipped.
#[utoipa::path(
    post, path = "/messages/{side}/rerun", operation_id = "rerunMessages", tag = "acts", request_body = RowIds,
    params(("side" = String, Path, description = "`published` or `received`")),
    responses(
        (status = 200, description = "what was done", body = Done),
        (status = 400, description = "an invalid body", body = ErrorBody),
        (status = 401, description = "no valid credentials", body = ErrorBody),
        (status = 403, description = "the right to act, or the form token of a session, is missing", body = ErrorBody),
        (status = 404, description = "no such side", body = ErrorBody),
    ),
)]
pub(super) async fn rerun(
    Path(side): Path<String>,
    ActJson { reader, body }: ActJson<RowIds>,
) -> Result<Json<Done>, Problem> {
    let (messages, ids) = target(&reader, &side, &body, true)?;
    Ok(done(&within(messages.rerun(&ids)).await?))
}

/// Deletes messages with their attempts. This cannot be undone.
#[utoipa::path(
    post, path = "/messages/{side}/delete", operation_id = "deleteMessages", tag = "acts", request_body = RowIds,
    params(("side" = String, Path, description = "`published` or `received`")),
    responses(
        (status = 200, description = "what was done", body = Done),
        (status = 400, description = "an invalid body", body = ErrorBody),
        (status = 401, description = "no valid credentials", body = ErrorBody),
        (status = 403, description = "the right to act, or the form token of a session, is missing", body = ErrorBody),
        (status = 404, description = "no such side", body = ErrorBody),
    ),
)]
pub(super) async fn delete(
    Path(side): Path<String>,
    ActJson { reader, body }: ActJson<RowIds>,
) -> Result<Json<Done>, Problem> {
    let (messages, ids) = target(&reader, &side, &body, true)?;
    Ok(done(&within(messages.delete(&ids)).await?))
}

/// Cancels delayed messages, which are then kept as failed with the reason `cancelled`.
#[utoipa::path(
    post, path = "/messages/{side}/cancel", operation_id = "cancelMessages", tag = "acts", request_body = RowIds,
    params(("side" = String, Path, description = "`published`: only these are delayed")),
    responses(
        (status = 200, description = "what was done", body = Done),
        (status = 400, description = "an invalid body", body = ErrorBody),
        (status = 401, description = "no valid credentials", body = ErrorBody),
        (status = 403, description = "the right to act, or the form token of a session, is missing", body = ErrorBody),
        (status = 404, description = "no such side", body = ErrorBody),
    ),
)]
pub(super) async fn cancel(
    Path(side): Path<String>,
    ActJson { reader, body }: ActJson<RowIds>,
) -> Result<Json<Done>, Problem> {
    let (messages, ids) = target(&reader, &side, &body, false)?;
    Ok(done(&within(messages.cancel(&ids)).await?))
}

/// Replaces the payload of a message and re-runs it. Id, headers and attempts stay. A payload that was JSON must stay JSON.
#[utoipa::path(
    put, path = "/messages/{side}/{id}/payload", operation_id = "editMessage", tag = "acts", request_body = NewPayload,
    params(
        ("side" = String, Path, description = "`published` or `received`"),
        ("id" = String, Path, description = "the row id"),
    ),
    responses(
        (status = 200, description = "what was done: nothing if the message is being processed", body = Done),
        (status = 400, description = "an invalid body or row id", body = ErrorBody),
        (status = 401, description = "no valid credentials", body = ErrorBody),
        (status = 403, description = "the right to act, or to unmask what is masked, is missing", body = ErrorBody),
        (status = 404, description = "no such message", body = ErrorBody),
        (status = 413, description = "the payload is too large", body = ErrorBody),
        (status = 422, description = "the payload was JSON, and this text is not", body = ErrorBody),
    ),
)]
pub(super) async fn edit(
    Path((side, id)): Path<(String, String)>,
    ActJson { reader, body }: ActJson<NewPayload>,
) -> Result<Json<Done>, Problem> {
    let limit = reader.app.settings.edit_limit;
    if body.payload.len() > limit {
        return Err(Problem::TooLarge(limit));
    }
    let row = row_of(&reader, &side, &id).await?;
    let shown = reader.shown(&row);
    if shown.is_masked {
        return Err(Problem::Forbidden("unmask"));
    }
    if matches!(shown.body, Body::Json(_)) && !is_json(&body.payload) {
        return Err(Problem::Rejected("the payload was JSON, and the new one is not".to_owned()));
    }
    let mut messages = reader.messages().side(row.side);
    if row.status == Status::Failed {
        messages = messages.status(Status::Failed);
    }
    let ids = [row.id];
    let is_done = within(messages.edit_raw_and_rerun(row.id, body.payload)).await?;
    Ok(done(if is_done { &ids } else { &[] }))
}

/// The side, the selection and the row ids of an act.
fn target(
    reader: &Reader,
    side: &str,
    body: &RowIds,
    only_failed: bool,
) -> Result<(Messages, Vec<i64>), Problem> {
    let side = side_of(side)?;
    if body.ids.len() > MOST_IDS {
        return Err(Problem::bad(format!("at most {MOST_IDS} messages can be named at once")));
    }
    let ids = body.ids.iter().map(|id| id_of(id)).collect::<Result<_, _>>()?;
    let messages = reader.messages().side(side);
    let only_failed = body.only_failed.unwrap_or(only_failed);
    Ok((if only_failed { messages.status(Status::Failed) } else { messages }, ids))
}

fn done(ids: &[i64]) -> Json<Done> {
    Json(Done { count: ids.len() as u64, ids: ids.iter().map(i64::to_string).collect() })
}
