//! Finding messages by id, or by a text in them.

use askama::Template;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::lines::{MessageLine, href};
use super::shell::{Shell, page};
use crate::data::within;
use crate::request::Problem;
use crate::text::{Text, grouped};
use crate::web::{Reader, SCANNED_ROWS, search};

/// The most messages that a search shows.
const MOST: usize = 200;

#[derive(Debug, Template)]
#[template(path = "search.html")]
struct SearchPage {
    shell: Shell,
    t: &'static Text,
    text: String,
    /// How many messages of each side were looked at, if there are more.
    looked_at: Option<String>,
    lines: Vec<MessageLine>,
    has_group: bool,
    has_due: bool,
}

/// Finds messages by message id or row id, and opens one that is found so. Otherwise finds those in which the text occurs.
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
    let mut stopped = None;
    let is_by_id = !rows.is_empty();
    if !text.is_empty() && !is_by_id {
        let both = [reader.messages().published(), reader.messages().received()];
        (rows, stopped) = search(&reader, &both, &text).await?;
        rows.truncate(MOST);
    }
    if let [row] = &*rows
        && is_by_id
    {
        return Ok(Redirect::to(&href(&reader.context.base, row.side, row.id)).into_response());
    }
    page(&SearchPage {
        lines: MessageLine::all(&rows, &reader),
        shell: Shell::new(&reader, "search").await,
        t: reader.context.text(),
        has_group: true,
        has_due: false,
        looked_at: stopped.map(|_| grouped(SCANNED_ROWS as u64)),
        text,
    })
}
