//! A stored message in words, for the text of a failed test.

use std::fmt::Write;
use std::time::Duration;

use cap_core::monitor::Row;
use cap_core::storage::{Side, Status};
use humantime::format_duration;

/// One line about a row: whether it is being worked on or due, and when it will be due.
pub(crate) fn line(row: &Row, is_busy: bool, due_in: Option<Duration>) -> String {
    let mut line = match row.side {
        Side::Outbox => format!("  published {}", row.name),
        Side::Inbox => format!("  received {} in group {}", row.name, row.group),
    };
    let id = row.message.id().unwrap_or("none");
    let state = match (is_busy, row.status) {
        (true, Status::Failed) => "parked, its failure callback is due",
        (true, _) => "in hand or due",
        (false, Status::Failed) => "parked",
        (false, Status::Succeeded) => "succeeded",
        (false, Status::Delayed) => "delayed",
        (false, _) => "waits for its next attempt",
    };
    // Writing to a String cannot fail.
    let _ = write!(line, " (message id {id}): {state}");
    if let Some(due) = due_in {
        let _ = write!(line, ", due in {}", format_duration(due));
    }
    if let Some(reason) = row.reason {
        let _ = write!(line, ", reason {}", reason.as_str());
    }
    if row.attempts > 0 {
        let _ = write!(line, ", {} failed attempts", row.attempts);
    }
    if let Some(error) = &row.last_error {
        let _ = write!(line, ", last error: {error}");
    }
    line.push('\n');
    line
}
