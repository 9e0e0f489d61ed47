//! `/published/{status}` and `/received/{status}`: lists by page number.

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use cap_core::Messages;
use cap_core::monitor::Row;
use cap_core::storage::{Side, Status};
use serde::Serialize;

use super::totals::capped;
use crate::data::within;
use crate::live::{COUNTED, bounded};
use crate::request::{Params, Problem};
use crate::text::cap_time;
use crate::web::{Reader, search};

/// Says what a search in the content stopped at, if it did not look at everything: `rows` or `time`.
const SEARCH_STOPPED: HeaderName = HeaderName::from_static("cap-search-stopped");
/// The most rows of a page.
const MOST_PER_PAGE: usize = 1_000;
/// A page.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names, reason = "CAP's names")]
pub(super) struct Page {
    items: Vec<Item>,
    totals: u64,
    page_index: i64,
    page_size: usize,
}

/// A message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: String,
    version: String,
    group: Option<String>,
    name: String,
    content: String,
    added: String,
    expires_at: Option<String>,
    retries: u32,
    status_name: &'static str,
}

/// What a request asks for.
#[derive(Debug)]
struct Wanted<'a> {
    statuses: &'static [Status],
    page: usize,
    per_page: usize,
    name: Option<&'a str>,
    group: Option<&'a str>,
    content: Option<&'a str>,
}

pub(super) async fn published(
    reader: Reader,
    Path(status): Path<String>,
) -> Result<(HeaderMap, Json<Page>), Problem> {
    list(&reader, Side::Outbox, &status).await
}

pub(super) async fn received(
    reader: Reader,
    Path(status): Path<String>,
) -> Result<(HeaderMap, Json<Page>), Problem> {
    list(&reader, Side::Inbox, &status).await
}

async fn list(reader: &Reader, side: Side, status: &str) -> Result<(HeaderMap, Json<Page>), Problem> {
    let wanted = Wanted::parse(&reader.query, side, status)?;
    let selections = wanted.selections(reader, side);
    let mut headers = HeaderMap::new();
    let (rows, totals) = if let Some(text) = wanted.content {
        let (found, stopped) = search(reader, &selections, text).await?;
        headers.extend(stopped.map(|stopped| (SEARCH_STOPPED, HeaderValue::from_static(stopped.name()))));
        let totals = found.len() as u64;
        (found.into_iter().skip(wanted.offset()).take(wanted.per_page).collect(), totals)
    } else {
        let (mut totals, mut is_capped) = (0, false);
        for selection in &selections {
            let amount = bounded(selection).await?;
            totals += amount.count;
            is_capped |= amount.is_capped;
        }
        headers.extend(capped(is_capped));
        (page(&selections, wanted.offset(), wanted.per_page).await?, totals)
    };
    let items = rows.iter().map(|row| Item::new(row, reader)).collect();
    let page_index = i64::try_from(wanted.page).unwrap_or(i64::MAX) - 1;
    Ok((headers, Json(Page { items, totals, page_index, page_size: wanted.per_page })))
}

impl<'a> Wanted<'a> {
    fn parse(params: &'a Params, side: Side, status: &str) -> Result<Self, Problem> {
        let page = params.number("currentPage")?.unwrap_or(1);
        if page == 0 {
            return Err(Problem::bad("currentPage begins at 1"));
        }
        let per_page = params.number("perPage")?.unwrap_or(20);
        if per_page > MOST_PER_PAGE {
            return Err(Problem::bad(format!("perPage is at most {MOST_PER_PAGE}")));
        }
        Ok(Self {
            statuses: statuses(status),
            page,
            per_page,
            name: params.get("name"),
            group: params.get("group").filter(|_| side == Side::Inbox),
            content: params.get("content"),
        })
    }

    fn offset(&self) -> usize {
        (self.page - 1).saturating_mul(self.per_page)
    }

    /// A selection for each status: CAP's "Failed" covers two of ours.
    fn selections(&self, reader: &Reader, side: Side) -> Vec<Messages> {
        let selection = |status: &Status| {
            let mut messages = reader.messages().side(side).status(*status);
            if let Some(name) = self.name {
                messages = messages.topic(name);
            }
            if let Some(group) = self.group {
                messages = messages.group(group);
            }
            messages
        };
        self.statuses.iter().map(selection).collect()
    }
}

/// Our statuses for a status of CAP. An unknown one has none, and an empty list.
fn statuses(name: &str) -> &'static [Status] {
    match name.to_ascii_lowercase().as_str() {
        "succeeded" => &[Status::Succeeded],
        "failed" => &[Status::Failed, Status::Retrying],
        "delayed" => &[Status::Delayed],
        "scheduled" | "queued" => &[Status::Scheduled],
        _ => &[],
    }
}

/// The rows of all selections at an offset, newest first. Beyond the counted rows there are none.
async fn page(selections: &[Messages], offset: usize, rows: usize) -> Result<Vec<Row>, Problem> {
    if rows == 0 || offset >= COUNTED {
        return Ok(Vec::new());
    }
    let mut before = None;
    if offset > 0 {
        let mut ids = Vec::new();
        for selection in selections {
            ids.extend(within(selection.clone().limit(offset).ids()).await?);
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        match ids.get(offset - 1) {
            Some(id) => before = Some(*id),
            None => return Ok(Vec::new()),
        }
    }
    let mut all = Vec::new();
    for selection in selections {
        let mut selection = selection.clone().limit(rows.min(COUNTED - offset));
        if let Some(before) = before {
            selection = selection.before(before);
        }
        all.extend(within(selection.list()).await?);
    }
    all.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
    all.truncate(rows);
    Ok(all)
}

impl Item {
    fn new(row: &Row, reader: &Reader) -> Self {
        // CAP shows when a delayed message is due in the same place.
        let expires = if row.status == Status::Delayed { row.due } else { row.expires };
        Self {
            id: row.id.to_string(),
            version: row.version.clone(),
            group: (row.side == Side::Inbox).then(|| row.group.to_string()),
            name: row.name.clone(),
            content: reader.shown(row).content(),
            added: cap_time(row.added),
            expires_at: expires.map(cap_time),
            retries: row.attempts,
            status_name: match row.status {
                Status::Succeeded => "Succeeded",
                Status::Failed | Status::Retrying => "Failed",
                Status::Delayed => "Delayed",
                _ => "Scheduled",
            },
        }
    }
}
