//! How statuses, sides, times and messages are stored in columns.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cap_adapter::error::json_error_text;
use cap_adapter::message::{Headers, Message};
use cap_adapter::monitor::Count;
use cap_adapter::storage::{Reason, Side, Status};

/// No span of time is longer than a hundred years in the database: sums stay within its calendar.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// The last moment that anything is compared with: the end of the year 9999, in microseconds since 1970.
const LAST_MOMENT: i64 = 253_402_300_800_000_000 - 1;

/// Converts a span of time to microseconds, a hundred years at most.
#[must_use]
pub fn micros(span: Duration) -> i64 {
    i64::try_from(span.min(LONGEST).as_micros()).unwrap_or(i64::MAX)
}

/// Converts a moment to microseconds since 1970, rounded up: a time that the database keeps in whole microseconds is before
/// it exactly if it is before the moment itself. Nothing was stored before 1970.
#[must_use]
pub fn micros_since_1970(moment: SystemTime) -> i64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos().div_ceil(1000)).unwrap_or(LAST_MOMENT).min(LAST_MOMENT)
}

/// Converts microseconds to a span of time. Less than zero is zero.
#[must_use]
pub fn span_of(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Converts microseconds since 1970 to a moment.
#[must_use]
pub fn time_of(micros: i64) -> SystemTime {
    let since = SystemTime::UNIX_EPOCH.checked_add(span_of(micros));
    since.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns the code of a side.
#[must_use]
pub fn side_code(side: Side) -> i16 {
    match side {
        Side::Outbox => 0,
        Side::Inbox => 1,
    }
}

/// Returns the name of a side's table, which is also the payload of a notification.
#[must_use]
pub fn side_name(side: Side) -> &'static str {
    match side {
        Side::Outbox => "outbox",
        Side::Inbox => "inbox",
    }
}

/// The code of [`Status::Scheduled`].
pub const SCHEDULED: i16 = 0;
/// The code of [`Status::Delayed`].
pub const DELAYED: i16 = 1;
/// The code of [`Status::Retrying`].
pub const RETRYING: i16 = 2;
/// The code of [`Status::Failed`].
pub const FAILED: i16 = 3;
/// The code of [`Status::Succeeded`].
pub const SUCCEEDED: i16 = 4;

/// Returns the code of a status.
#[must_use]
pub fn status_code(status: Status) -> i16 {
    match status {
        Status::Scheduled => SCHEDULED,
        Status::Delayed => DELAYED,
        Status::Retrying => RETRYING,
        Status::Failed => FAILED,
        // Status is open to new variants; a version that has one also has its code.
        _ => SUCCEEDED,
    }
}

/// Returns the status of a code. Without a state row, or with a code of a newer version, a message counts as succeeded: it is
/// then left alone.
#[must_use]
pub fn status_of(code: Option<i16>) -> Status {
    match code {
        Some(SCHEDULED) => Status::Scheduled,
        Some(DELAYED) => Status::Delayed,
        Some(RETRYING) => Status::Retrying,
        Some(FAILED) => Status::Failed,
        _ => Status::Succeeded,
    }
}

/// Returns the reason of a stable name; none for one of a newer version.
#[must_use]
pub fn reason_of(name: Option<&str>) -> Option<Reason> {
    name.and_then(Reason::from_name)
}

/// Converts a count, which is never less than zero.
#[must_use]
pub fn count_of(count: i32) -> u32 {
    u32::try_from(count).unwrap_or(0)
}

/// Converts a limit to what a statement takes.
#[must_use]
pub fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Makes a message of the columns `headers` and `body`.
///
/// # Errors
///
/// What is wrong with the headers, for the row's last error.
pub fn message_of(headers: &str, body: Bytes) -> Result<Arc<Message>, String> {
    match Headers::from_json(headers) {
        Ok(headers) => Ok(Arc::new(Message { headers, body })),
        Err(error) => Err(format!("the stored headers cannot be read: {}", json_error_text(&error))),
    }
}

/// Makes what an operator sees of the columns `headers` and `body`. The body may still be of use where the headers cannot be
/// read; why they cannot is the row's last error.
#[must_use]
pub fn shown_message_of(headers: &str, body: Bytes) -> Arc<Message> {
    Arc::new(Message { headers: Headers::from_json(headers).unwrap_or_default(), body })
}

/// Makes a count of the columns `side`, `group_name`, `status` and `count`.
#[must_use]
pub fn counted(side: i16, group: &str, status: Option<i16>, count: i64) -> Count {
    let side = if side == side_code(Side::Inbox) { Side::Inbox } else { Side::Outbox };
    Count::new(side, group, status_of(status), u64::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_rounded_up_and_bounded() {
        let at = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        for (moment, micros) in [(at(0), 0), (at(1), 1), (at(1000), 1), (at(1001), 2)] {
            assert_eq!(micros_since_1970(moment), micros, "{moment:?}");
        }
        assert_eq!(micros_since_1970(SystemTime::UNIX_EPOCH - LONGEST), 0);
        assert_eq!(micros_since_1970(SystemTime::UNIX_EPOCH + LONGEST * 200), LAST_MOMENT);
    }

    #[test]
    fn a_code_of_a_newer_version_counts_as_succeeded() {
        for status in
            [Status::Scheduled, Status::Delayed, Status::Retrying, Status::Failed, Status::Succeeded]
        {
            assert_eq!(status_of(Some(status_code(status))), status);
        }
        assert_eq!([status_of(Some(9)), status_of(None)], [Status::Succeeded; 2]);
    }
}
