//! Editing a payload as text.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use cap_core::monitor::Row;
use cap_core::storage::Status;

use super::lines::{href, side_name};
use super::message::row_of;
use super::shell::{Shell, page};
use crate::data::within;
use crate::payload::{Body, compact, is_json, pretty};
use crate::request::Problem;
use crate::text::Text;
use crate::web::{ActForm, Reader};

#[derive(Debug, Template)]
#[template(path = "edit.html")]
struct EditPage {
    shell: Shell,
    t: &'static Text,
    id: i64,
    side: &'static str,
    topic: String,
    href: String,
    text: String,
    /// Why the last text was not taken.
    error: Option<String>,
}

pub(super) async fn show(
    reader: Reader,
    Path((side, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    if !reader.user.rights.may_act() {
        return Err(Problem::Forbidden("act"));
    }
    let row = row_of(&reader, &side, &id).await?;
    let text = match editable(&reader, &row)? {
        Body::Json(text) => pretty(&text),
        Body::Text(text) => text,
        _ => String::new(),
    };
    if text.len() > reader.app.settings.edit_limit {
        return Err(Problem::TooLarge(reader.app.settings.edit_limit));
    }
    page(&EditPage::of(&reader, &row, text, None).await)
}

/// Stores the new payload and re-runs the message.
pub(super) async fn save(
    Path((side, id)): Path<(String, String)>,
    ActForm { reader, form }: ActForm,
) -> Result<Response, Problem> {
    let row = row_of(&reader, &side, &id).await?;
    let former = editable(&reader, &row)?;
    let text = unix_lines(form.get("payload").unwrap_or_default(), &row);
    if text.len() > reader.app.settings.edit_limit {
        return Err(Problem::TooLarge(reader.app.settings.edit_limit));
    }
    let body = match &former {
        Body::Json(former) if is_json(&text) => {
            // Only the space of the page's own layout is taken out again.
            if *former == compact(former) { compact(&text) } else { text }
        }
        Body::Json(_) => {
            let error = reader.context.text().edit_not_json;
            let why = serde_json::from_str::<serde::de::IgnoredAny>(&text).err();
            let error = format!("{error} {}", why.map(|why| why.to_string()).unwrap_or_default());
            let response = page(&EditPage::of(&reader, &row, text, Some(error)).await)?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, response).into_response());
        }
        _ => text,
    };
    let mut messages = reader.messages().side(row.side);
    if row.status == Status::Failed {
        // Somebody else may have re-run it meanwhile: then nothing is changed.
        messages = messages.status(Status::Failed);
    }
    let done = within(messages.edit_raw_and_rerun(row.id, body)).await?;
    let to = href(&reader.context.base, row.side, row.id);
    Ok(Redirect::to(&format!("{to}?done=edit&count={}", u8::from(done))).into_response())
}

/// What of a message can be edited as text. Whoever does not see all of it cannot edit it, so that no mask is ever saved.
pub(crate) fn editable(reader: &Reader, row: &Row) -> Result<Body, Problem> {
    let shown = reader.shown(row);
    match shown.body {
        _ if shown.is_masked => Err(Problem::Forbidden("unmask")),
        Body::Binary(_) => {
            Err(Problem::Rejected("this payload is no text: re-run it as it is, or delete it".to_owned()))
        }
        body => Ok(body),
    }
}

/// Forms send line ends as CR LF. They become LF again, unless the stored payload has CR of its own.
fn unix_lines(text: &str, row: &Row) -> String {
    if row.message.body.contains(&b'\r') { text.to_owned() } else { text.replace("\r\n", "\n") }
}

impl EditPage {
    async fn of(reader: &Reader, row: &Row, text: String, error: Option<String>) -> Self {
        Self {
            shell: Shell::new(reader, side_name(row.side)).await,
            t: reader.context.text(),
            id: row.id,
            side: side_name(row.side),
            topic: row.name.clone(),
            href: href(&reader.context.base, row.side, row.id),
            text,
            error,
        }
    }
}
