//! How plain data stands in columns: sides, states, times, messages.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cap_adapter::error::json_error_text;
use cap_adapter::message::{Headers, MAX_NAME_LENGTH, Message, MessageId};
use cap_adapter::storage::{Reason, Side, Status};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::error::Fault;

/// No span of time is longer than a hundred years in the database: sums stay within its calendar.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

pub(crate) fn micros(span: Duration) -> i64 {
    i64::try_from(span.min(LONGEST).as_micros()).unwrap_or(i64::MAX)
}

/// The last moment that anything is compared with: the end of the year 9999, in microseconds since 1970.
const LAST_MOMENT: i64 = 253_402_300_800_000_000 - 1;

/// A moment in microseconds since 1970, rounded up: a time that the database keeps in whole microseconds is before it,
/// or not, as it is before the moment itself. Nothing was stored before 1970.
pub(crate) fn micros_since_1970(moment: SystemTime) -> i64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos().div_ceil(1000)).unwrap_or(LAST_MOMENT).min(LAST_MOMENT)
}

/// The code of a side in the tables of attempts and signals.
pub(crate) fn side_code(side: Side) -> i64 {
    match side {
        Side::Outbox => 0,
        Side::Inbox => 1,
    }
}

pub(crate) fn side_name(side: Side) -> &'static str {
    match side {
        Side::Outbox => "outbox",
        Side::Inbox => "inbox",
    }
}

pub(crate) const SCHEDULED: i64 = 0;
pub(crate) const DELAYED: i64 = 1;
pub(crate) const RETRYING: i64 = 2;
pub(crate) const FAILED: i64 = 3;
pub(crate) const SUCCEEDED: i64 = 4;

pub(crate) fn status_code(status: Status) -> i64 {
    match status {
        Status::Scheduled => SCHEDULED,
        Status::Delayed => DELAYED,
        Status::Retrying => RETRYING,
        Status::Failed => FAILED,
        // Status is open to new variants; a version that has one also has its code.
        _ => SUCCEEDED,
    }
}

/// The status of a code. Without a state row, or with a code from a newer version, a message counts as done: it is
/// then left alone.
pub(crate) fn status_of(code: Option<i64>) -> Status {
    match code {
        Some(SCHEDULED) => Status::Scheduled,
        Some(DELAYED) => Status::Delayed,
        Some(RETRYING) => Status::Retrying,
        Some(FAILED) => Status::Failed,
        _ => Status::Succeeded,
    }
}

pub(crate) fn reason_of(name: Option<&str>) -> Option<Reason> {
    name.and_then(Reason::from_name)
}

pub(crate) fn count_of(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(0)
}

/// A time as the tables keep it: microseconds since 1970.
pub(crate) fn time_of(micros: i64) -> SystemTime {
    let since = SystemTime::UNIX_EPOCH.checked_add(span_of(micros));
    since.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A span of time in microseconds; one below zero is none.
pub(crate) fn span_of(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// The message of the columns `headers` and `body`, or what is wrong with the headers.
pub(crate) fn message_at(row: &SqliteRow) -> Result<Result<Arc<Message>, String>, sqlx::Error> {
    let headers = Headers::from_json(row.try_get::<&str, _>("headers")?);
    let body = Bytes::from(row.try_get::<Vec<u8>, _>("body")?);
    Ok(match headers {
        Ok(headers) => Ok(Arc::new(Message { headers, body })),
        Err(error) => Err(format!("the stored headers cannot be read: {}", json_error_text(&error))),
    })
}

/// That a text fits its column, or else a refusal that names it.
pub(crate) fn check_text(what: &str, text: &str, longest: usize) -> Result<(), Fault> {
    let length = text.chars().count();
    if length > longest {
        return Err(Fault::Refused(format!(
            "{what} has {length} characters; at most {longest} can be stored"
        )));
    }
    if text.contains('\0') {
        return Err(Fault::Refused(format!("{what} has a NUL character, at which SQLite would cut it off")));
    }
    Ok(())
}

/// The longest version tag, as in .NET CAP.
const LONGEST_VERSION: usize = 20;

pub(crate) fn check_owner(version: &str, node: &str) -> Result<(), Fault> {
    check_text("the version", version, LONGEST_VERSION)?;
    check_text("the node's name", node, usize::MAX)
}

/// That the parts of a message that have columns of their own fit them.
pub(crate) fn check_message(row: i64, message: &Message) -> Result<(), Fault> {
    check_text(&format!("the topic of message {row}"), message.name().unwrap_or_default(), MAX_NAME_LENGTH)?;
    check_text(
        &format!("the message id of message {row}"),
        message.id().unwrap_or_default(),
        MessageId::MAX_LENGTH,
    )
}

pub(crate) fn check_group(row: i64, group: &str) -> Result<(), Fault> {
    check_text(&format!("the group of message {row}"), group, MAX_NAME_LENGTH)
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
}
