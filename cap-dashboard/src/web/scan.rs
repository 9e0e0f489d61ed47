//! Looking through the newest messages, bounded in rows and time. It finds only what the user may see.

use std::time::Duration;

use cap_core::Messages;
use cap_core::monitor::Row;
use tokio::time::Instant;

use super::extract::Reader;
use crate::data::within;
use crate::payload::Shown;
use crate::request::Problem;

/// How many rows of a selection are looked at.
pub(crate) const SCANNED_ROWS: usize = 2_000;
/// How many rows are read in one call, so that few bodies are in memory together.
const AT_ONCE: usize = 200;
/// How long a scan may take.
const SCANNED_FOR: Duration = Duration::from_secs(4);

/// What a scan stopped at before it had looked at everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    Rows,
    Time,
}

/// Shows the newest messages of a selection to `look`, each as the user may see it. Says what it stopped at.
pub(crate) async fn scan(
    reader: &Reader,
    selection: &Messages,
    mut look: impl FnMut(Row, Shown) + Send,
) -> Result<Option<Stopped>, Problem> {
    let ends = Instant::now() + SCANNED_FOR;
    let (mut before, mut looked_at) = (None, 0);
    loop {
        if looked_at >= SCANNED_ROWS {
            return Ok(Some(Stopped::Rows));
        }
        if Instant::now() >= ends {
            return Ok(Some(Stopped::Time));
        }
        let mut page = selection.clone().limit(AT_ONCE);
        if let Some(before) = before {
            page = page.before(before);
        }
        let rows = within(page.list()).await?;
        let is_last = rows.len() < AT_ONCE;
        looked_at += rows.len();
        before = rows.last().map(|row| row.id);
        for row in rows {
            let shown = reader.shown(&row);
            look(row, shown);
        }
        if is_last {
            return Ok(None);
        }
    }
}

/// The messages of some selections in whose shown headers, payload or error a text occurs, newest first.
pub(crate) async fn search(
    reader: &Reader,
    selections: &[Messages],
    text: &str,
) -> Result<(Vec<Row>, Option<Stopped>), Problem> {
    let (mut found, mut stopped) = (Vec::new(), None);
    for selection in selections {
        let look = |row: Row, shown: Shown| {
            let in_error = shown.error.as_deref().is_some_and(|error| error.contains(text));
            if in_error || shown.content().contains(text) {
                found.push(row);
            }
        };
        stopped = scan(reader, selection, look).await?.or(stopped);
    }
    found.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
    Ok((found, stopped))
}

impl Stopped {
    /// The stable name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Time => "time",
        }
    }
}
