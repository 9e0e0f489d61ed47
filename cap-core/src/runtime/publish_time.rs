//! When a message was published, if its id says so.

use std::time::{Duration, SystemTime};

use time::{Date, Month, OffsetDateTime, Time};

use crate::message::headers::names;
use crate::message::{IdGenerator, Message};

/// How far the sent time of a message of ours, in whole seconds, may be from the time in its id.
const TOLERANCE: Duration = Duration::from_secs(2);

/// When a message was published, to the millisecond; `None` for delayed messages and for those of other senders.
///
/// Ids of .NET CAP are numbers too, but the time is elsewhere in them and is not that of the message. The sent time tells
/// which kind an id is: ours agrees with it, in UTC. It says nothing else here, since other senders write local time.
pub(crate) fn published_at(message: &Message) -> Option<SystemTime> {
    let id = message.id()?.parse().ok()?;
    let sent = unix_seconds(message.headers.get(names::SENT_TIME)?)?;
    let published = IdGenerator::time_of(id);
    let since_epoch = published.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since_epoch.abs_diff(Duration::from_secs(sent)) <= TOLERANCE).then_some(published)
}

/// The seconds since 1970 of a sent time in UTC: `MM/dd/yyyy HH:mm:ss`.
fn unix_seconds(sent: &str) -> Option<u64> {
    let (date, time) = sent.split_once(' ')?;
    let (mut date, mut time) = (date.splitn(3, '/'), time.splitn(3, ':'));
    let month = Month::try_from(date.next()?.parse::<u8>().ok()?).ok()?;
    let (day, year) = (date.next()?.parse().ok()?, date.next()?.parse().ok()?);
    let date = Date::from_calendar_date(year, month, day).ok()?;
    let mut part = || time.next()?.parse().ok();
    let time = Time::from_hms(part()?, part()?, part()?).ok()?;
    u64::try_from(OffsetDateTime::new_utc(date, time).unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Headers;

    fn message(id: i64, sent: &str) -> Message {
        let id = id.to_string();
        let headers: Headers =
            [(names::MESSAGE_ID, id.as_str()), (names::SENT_TIME, sent)].into_iter().collect();
        Message::new(headers, bytes::Bytes::new())
    }

    #[test]
    fn only_ids_of_ours_have_a_publish_time() {
        // 2025-11-21T19:03:05.250Z
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_751_785_250);
        let ours = IdGenerator::first_id_at(at) + 7;
        assert_eq!(published_at(&message(ours, "11/21/2025 19:03:05")), Some(at));
        assert_eq!(published_at(&message(ours, "11/21/2025 19:05:05")), None, "delayed");
        assert_eq!(published_at(&message(ours, "11/21/2025 20:03:05")), None, "local time of another sender");
        // Worker 101 of .NET: read as one of ours it would be of this year.
        let foreign = (101 << 53) | (474_916_811_593_i64 << 12);
        assert_eq!(published_at(&message(foreign, "11/21/2025 19:03:05")), None);
        assert_eq!(published_at(&message(ours, "")), None);
    }
}
