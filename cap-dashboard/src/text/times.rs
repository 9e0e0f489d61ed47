//! Times as people and programs read them. All are in UTC.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::words::Text;

const READABLE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]");
const SECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
const PRECISE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]");

/// A time on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// For programs, and for the script that shows it in the browser's own time zone.
    pub(crate) iso: String,
    /// In full.
    pub(crate) full: String,
    /// How long ago, or in how long.
    pub(crate) relative: String,
}

impl Stamp {
    pub(crate) fn new(time: SystemTime, now: SystemTime, text: &Text) -> Self {
        let relative = match now.duration_since(time) {
            Ok(ago) => text.ago.replace("{}", &span(ago.as_secs(), text)),
            Err(ahead) => text.ahead.replace("{}", &span(ahead.duration().as_secs(), text)),
        };
        Self { iso: iso(time), full: formatted(time, READABLE), relative }
    }
}

/// The largest unit of a duration.
fn span(seconds: u64, text: &Text) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, text.seconds),
        60..3_600 => (seconds / 60, text.minutes),
        3_600..86_400 => (seconds / 3_600, text.hours),
        _ => (seconds / 86_400, text.days),
    };
    format!("{count}{unit}")
}

/// A time for programs: `2026-01-31T12:00:00.123456Z`.
pub(crate) fn iso(time: SystemTime) -> String {
    format!("{}Z", formatted(time, PRECISE))
}

/// A time as CAP's API has it: without an offset, and without zeros at the end of the fraction.
pub(crate) fn cap_time(time: SystemTime) -> String {
    let fraction = formatted(time, PRECISE);
    let trimmed = fraction.trim_end_matches('0').trim_end_matches('.');
    if trimmed.contains('.') { trimmed.to_owned() } else { formatted(time, SECONDS) }
}

fn formatted(time: SystemTime, format: &[BorrowedFormatItem<'_>]) -> String {
    OffsetDateTime::from(time).format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::words::ENGLISH;
    use super::*;

    #[test]
    fn times_of_cap_have_no_needless_zeros() {
        let at = |nanos| cap_time(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
        assert_eq!(at(0), "1970-01-01T00:00:00");
        assert_eq!(at(724_940_000), "1970-01-01T00:00:00.72494");
        assert_eq!(at(10_000_000_000), "1970-01-01T00:00:10");
    }

    #[test]
    fn relative_times_have_one_unit() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ago = |seconds| Stamp::new(now - Duration::from_secs(seconds), now, &ENGLISH).relative;
        assert_eq!([ago(5), ago(90), ago(7_200), ago(200_000)], ["5s ago", "1m ago", "2h ago", "2d ago"]);
        assert_eq!(Stamp::new(now + Duration::from_secs(61), now, &ENGLISH).relative, "in 1m");
    }
}
