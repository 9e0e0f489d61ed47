//! The history of a call, read back through cap's own interface, printed, and compared with what should have happened.

use std::time::{Duration, SystemTime};

use cap_bus::monitor::{FailedAttempt, Row};
use cap_bus::prelude::*;
use sqlx::PgPool;

use super::BoxResult;

/// What should become of an invoice.
pub(crate) struct Expected {
    pub(crate) title: &'static str,
    /// A part of each error, first to last.
    pub(crate) errors: &'static [&'static str],
    /// The seconds from each failed attempt to the next that the bus makes by itself.
    pub(crate) pauses: &'static [u64],
    /// Who did what, if it took an operator.
    pub(crate) helper: Option<&'static str>,
}

/// The result of a call that succeeded.
struct Success {
    receipt: String,
    attempt: i64,
    at: SystemTime,
}

/// All that is known of one call.
pub(crate) struct History {
    /// The message as cap has received it.
    row: Row,
    attempts: Vec<FailedAttempt>,
    success: Option<Success>,
}

impl History {
    pub(crate) async fn read(cap: &Cap, pool: &PgPool, number: u32, id: &MessageId) -> BoxResult<Self> {
        let rows = cap.messages().find(id.as_str()).await?;
        let row = rows.into_iter().next().ok_or("cap has no record of it")?;
        let attempts = cap.messages().attempts(row.id).await?;
        let receipt: Option<(String, i64, f64)> = sqlx::query_as(
            "SELECT receipt, attempt, extract(epoch FROM at)::float8 FROM receipts WHERE invoice = $1",
        )
        .bind(i64::from(number))
        .fetch_optional(pool)
        .await?;
        let success = receipt.map(|(receipt, attempt, seconds)| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
            Success { receipt, attempt, at }
        });
        Ok(Self { row, attempts, success })
    }

    /// One line for each thing that happened.
    pub(crate) fn print(&self, number: u32, title: &str) {
        println!("\n  Invoice {number}: {title}");
        print_line(["time", "after", "attempt", "by", "next due", "what"]);
        let mut by_hand = self.by_hand().peekable();
        for attempt in &self.attempts {
            let next = attempt.next.map_or_else(|| "never".to_owned(), |next| self.after(next));
            let (time, after) = (clock(attempt.at), self.after(attempt.at));
            print_line([&time, &after, &attempt.number.to_string(), &attempt.node, &next, &attempt.error]);
            // Where no attempt was to follow, an operator made one.
            if let Some([time, who, what]) = by_hand.next_if(|_| attempt.next.is_none()) {
                print_line([time, "", "", who, "", what]);
            }
        }
        for [time, who, what] in by_hand {
            print_line([time, "", "", who, "", what]);
        }
        if let Some(Success { receipt, attempt, at }) = &self.success {
            let what = format!("sent, receipt {receipt}");
            print_line([&clock(*at), &self.after(*at), &attempt.to_string(), "", "", &what]);
        }
    }

    /// What did not happen as it should have.
    pub(crate) fn problem(&self, expected: &Expected) -> Option<String> {
        let errors = self.attempts.len() == expected.errors.len()
            && self.attempts.iter().zip(expected.errors).all(|(attempt, part)| attempt.error.contains(part));
        let pauses: Vec<u64> = self.attempts.iter().filter_map(pause).collect();
        let helpers: Vec<String> = self.by_hand().map(|[_, who, what]| format!("{who} {what}")).collect();
        let attempt = self.success.as_ref().map(|success| success.attempt);
        if !errors {
            Some(format!("it should have failed with {:?}", expected.errors))
        } else if pauses != expected.pauses {
            Some(format!("the pauses were {pauses:?} seconds instead of {:?}", expected.pauses))
        } else if helpers != Vec::from_iter(expected.helper) {
            Some(format!("by hand: {helpers:?} instead of {:?}", expected.helper))
        } else if attempt != i64::try_from(self.attempts.len() + 1).ok() {
            Some(format!(
                "the receipt should be of the attempt after the last that failed, not of {attempt:?}"
            ))
        } else {
            None
        }
    }

    /// What people did, first to last: when, who, what. Each is a line of this header.
    fn by_hand(&self) -> impl Iterator<Item = [&str; 3]> {
        self.row.message.headers.get("cap-audit").into_iter().flat_map(str::lines).map(|line| {
            let mut words = line.splitn(3, ' ');
            let [when, who, what] = std::array::from_fn(|_| words.next().unwrap_or_default());
            [when.get(CLOCK.start..CLOCK.end - 4).unwrap_or(when), who, what]
        })
    }

    /// How long after the message was stored.
    fn after(&self, time: SystemTime) -> String {
        let after = time.duration_since(self.row.added).unwrap_or_default();
        format!("{:.2} s", after.as_secs_f64())
    }
}

/// The seconds, to the nearest, between a failed attempt and the next.
fn pause(attempt: &FailedAttempt) -> Option<u64> {
    let pause = attempt.next?.duration_since(attempt.at).unwrap_or_default();
    Some((pause + Duration::from_millis(500)).as_secs())
}

/// Where the time of day, with its milliseconds, is in a time as RFC 3339 writes it.
const CLOCK: std::ops::Range<usize> = 11..23;

/// The time of day, in UTC.
fn clock(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_millis(time).to_string();
    text.get(CLOCK).unwrap_or(&text).to_owned()
}

fn print_line([time, after, attempt, by, next, what]: [&str; 6]) {
    println!("    {time:<12}  {after:>7}  {attempt:>7}  {by:<9}  {next:>8}  {what}");
}
