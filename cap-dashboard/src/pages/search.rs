//! Finding a message by its id.

use askama::Template;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::lines::{MessageLine, href};
use super::shell::{Shell, page};
use crate::data::within;
use crate::request::Problem;
use crate::text::Text;
use crate::web::Reader;

#[derive(Debug, Template)]
#[template(path = "search.html")]
struct SearchPage {
    shell: Shell,
    t: &'static Text,
    text: String,
    lines: Vec<MessageLine>,
    has_group: bool,
    has_due: bool,
}

/// Finds messages by message id or row id. One result is opened at once.
pub(super) async fn show(reader: Reader) -> Result<Response, Problem> {
    let text = reader.query.get("q").unwrap_or_default().trim().to_owned();
    let mut rows = Vec::new();
    if !text.is_empty() {
        for messages in [reader.messages().published(), reader.messages().received()] {
            rows.extend(within(messages.find(&text)).await?);
            if let Ok(id) = text.parse() {
                rows.extend(within(messages.get(id)).await?);
            }
        }
        rows.sort_by_key(|row| (row.side, row.id));
        rows.dedup_by_key(|row| (row.side, row.id));
    }
    if let [row] = &*rows {
        return Ok(Redirect::to(&href(&reader.context.base, row.side, row.id)).into_response());
    }
    page(&SearchPage {
        lines: MessageLine::all(&rows, &reader),
        shell: Shell::new(&reader, "search").await,
        t: reader.context.text(),
        has_group: true,
        has_due: false,
        text,
    })
}
