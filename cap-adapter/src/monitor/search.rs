//! Searches that end in bounded time.

use std::time::Duration;

use serde::Serialize;

use super::row::Row;

/// How much a search may cost. Default: 200,000 rows, 2 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SearchLimits {
    /// How many rows it looks at, about: a storage looks at some at a time.
    pub rows: u64,
    /// How long it may take before no further rows are looked at. A storage that has begun to look at some finishes that, or
    /// cancels it, which takes a few seconds at most.
    pub time: Duration,
}

impl Default for SearchLimits {
    fn default() -> Self {
        Self { rows: 200_000, time: Duration::from_secs(2) }
    }
}

impl SearchLimits {
    /// Limits of this number of rows and this time.
    #[must_use]
    pub fn new(rows: u64, time: Duration) -> Self {
        Self { rows, time }
    }
}

/// Why a search stopped before it had a full page or was at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Bound {
    /// It looked at as many rows as it may.
    Rows,
    /// It took as long as it may.
    Time,
}

/// What a search found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SearchPage {
    /// The messages that match, newest first.
    pub rows: Vec<Row>,
    /// Where to continue: the value for [`Query::before`](super::Query::before). `None` at the end. New messages do not move
    /// it, so that no message is in two pages.
    pub next: Option<i64>,
    /// Why it stopped early; `None` if the page is full or there are no more rows.
    pub bound: Option<Bound>,
    /// How many rows it looked at.
    pub looked_at: u64,
}

impl SearchPage {
    /// The page of a list without a bound.
    #[must_use]
    pub fn listed(rows: Vec<Row>, limit: usize) -> Self {
        let next = if rows.len() < limit { None } else { rows.last().map(|row| row.id) };
        Self { looked_at: rows.len() as u64, rows, next, bound: None }
    }
}
