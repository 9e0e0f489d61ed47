//! Whether a bus has anything to do at this moment, as its storage shows it.

use std::time::{Duration, SystemTime};

use cap_core::Cap;
use cap_core::error::StorageError;
use cap_core::monitor::{MessageState, Row};
use cap_core::storage::{Side, Status};

use crate::story::line;

/// A row that is due this much later counts as due: the clocks of test and storage were read one after the other.
const TOLERANCE: Duration = Duration::from_millis(2);

/// The most rows of a test.
const MOST_ROWS: usize = 1_000_000;

/// The rows of a bus at one moment.
pub(crate) struct Snapshot {
    pub(crate) rows: Vec<Row>,
    now: SystemTime,
}

/// What must be equal in two snapshots between which nothing happened.
pub(crate) type Mark = Vec<(Side, i64, Status, u32, u32)>;

impl Snapshot {
    /// Reads the outbox before the inbox, as messages go.
    pub(crate) async fn of(cap: &Cap, now: SystemTime) -> Result<Self, StorageError> {
        let mut rows = cap.messages().published().limit(MOST_ROWS).list().await?;
        rows.extend(cap.messages().received().limit(MOST_ROWS).list().await?);
        // Oldest first, as they happened.
        rows.sort_by_key(|row| (row.side == Side::Inbox, row.id));
        Ok(Self { rows, now })
    }

    /// Whether this row is being worked on, or due.
    pub(crate) fn is_busy(&self, row: &Row) -> bool {
        match row.state(self.now) {
            MessageState::Succeeded | MessageState::Cancelled => false,
            MessageState::Leased => true,
            // Its failure callback is still to be called.
            MessageState::Parked => {
                row.due.is_some_and(|due| due <= self.now + TOLERANCE || row.owner.is_some())
            }
            _ => row.due.is_none_or(|due| due <= self.now + TOLERANCE),
        }
    }

    /// How long from now until this row is due, if it waits for its time.
    pub(crate) fn due_in(&self, row: &Row) -> Option<Duration> {
        let waits = !matches!(
            row.state(self.now),
            MessageState::Succeeded | MessageState::Cancelled | MessageState::Parked
        );
        let due = row.due.filter(|_| waits && !self.is_busy(row))?;
        due.duration_since(self.now).ok()
    }

    /// How long until the next row is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.rows.iter().filter_map(|row| self.due_in(row)).min()
    }

    pub(crate) fn mark(&self) -> Mark {
        let mark = |row: &Row| (row.side, row.id, row.status, row.attempts, row.reruns);
        self.rows.iter().map(mark).collect()
    }

    /// What failed for good.
    pub(crate) fn parked(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.state(self.now) == MessageState::Parked)
    }

    /// All rows in words, one a line.
    pub(crate) fn story(&self) -> String {
        self.rows.iter().map(|row| self.line(row)).collect()
    }

    /// One row in words.
    pub(crate) fn line(&self, row: &Row) -> String {
        line(row, self.is_busy(row), self.due_in(row))
    }
}
