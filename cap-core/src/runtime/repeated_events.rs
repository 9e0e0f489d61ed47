//! Rate limiting of log lines that a sender could cause without end, such as one for each invalid message. The first of
//! a kind is logged at once, the others are counted, and the counts are logged once a minute. At `DEBUG` each is logged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long repetitions of a kind are counted before the count is logged.
const WINDOW: Duration = Duration::from_mins(1);
/// How many kinds are counted separately. Further kinds share one count for each event.
const KINDS: usize = 256;
/// Replaces the details of further kinds.
const OTHERS: &str = "others";

/// Counts events that have already been logged.
#[derive(Debug, Default)]
pub(crate) struct RepeatedEvents {
    kinds: Mutex<HashMap<Kind, Counted>>,
    /// Notified when a kind is counted that was not counted before.
    counting: Notify,
}

/// An event that a sender can cause without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// A received message was parked before any handler ran.
    Parked,
    /// An attempt of a handler failed.
    AttemptFailed,
    /// A message failed for good.
    FailedForGood,
    /// A reply was not sent because its topic is not allowed.
    ReplyNotSent,
    /// A retry copy was received without a valid proof that a node of this storage sent it.
    CopyRejected,
}

impl Event {
    fn text(self) -> &'static str {
        match self {
            Self::Parked => "message parked on receipt",
            Self::AttemptFailed => "handler failed",
            Self::FailedForGood => "message failed for good",
            Self::ReplyNotSent => "reply not sent",
            Self::CopyRejected => "retry copy dropped",
        }
    }
}

/// What makes two events the same kind: the event, its group, and a detail.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    event: Event,
    group: Arc<str>,
    detail: String,
}

#[derive(Debug)]
struct Counted {
    since: Instant,
    more: u64,
}

impl RepeatedEvents {
    /// Whether to log this event in full. That is so if none of its kind occurred within the last minute; otherwise the
    /// event is counted.
    pub(crate) fn is_first(&self, event: Event, group: &Arc<str>, detail: impl Into<String>) -> bool {
        let mut kind = Kind { event, group: Arc::clone(group), detail: detail.into() };
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.len() >= KINDS && !kinds.contains_key(&kind) {
            kind = Kind { detail: OTHERS.to_owned(), ..kind };
        }
        if let Some(counted) = kinds.get_mut(&kind) {
            counted.more += 1;
            return false;
        }
        kinds.insert(kind, Counted { since: Instant::now(), more: 0 });
        self.counting.notify_one();
        true
    }

    /// Logs the counts until stopped, and then what is left.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let rounds = async {
            loop {
                match self.write(false) {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => self.counting.notified().await,
                }
            }
        };
        stop.run_until_cancelled(rounds).await;
        self.write(true);
    }

    /// Logs the counts whose minute is over, or all of them, and drops kinds that were not repeated. Returns when the next
    /// minute is over.
    fn write(&self, all: bool) -> Option<Instant> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kinds.retain(|kind, counted| {
            if !all && counted.since + WINDOW > now {
                return true;
            }
            let Kind { event, group, detail } = kind;
            let more = std::mem::take(&mut counted.more);
            if more > 0 {
                let seconds = (now - counted.since).as_secs();
                let event = event.text();
                tracing::warn!(
                    event,
                    group = &**group,
                    detail,
                    more,
                    seconds,
                    "event repeated; further occurrences were counted, not logged one by one"
                );
            }
            counted.since = now;
            more > 0
        });
        kinds.values().map(|counted| counted.since + WINDOW).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_of_a_kind_is_logged_and_again_after_a_quiet_minute() {
        let (repeats, group) = (RepeatedEvents::default(), Arc::from("shop.v1"));
        let first = |detail: &str| repeats.is_first(Event::Parked, &group, detail);
        assert!(first("a") && !first("a") && first("b"), "each detail is a kind of its own");
        tokio::time::advance(WINDOW / 2).await;
        assert!(repeats.write(false).is_some() && !first("a"));
        tokio::time::advance(WINDOW).await;
        assert!(repeats.write(false).is_some(), "the kind was repeated, so counting goes on");
        assert!(!first("a") && first("b"));
        tokio::time::advance(WINDOW).await;
        repeats.write(false);
        tokio::time::advance(WINDOW).await;
        assert_eq!(repeats.write(false), None, "kinds that are not repeated are dropped");
        assert!(first("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn kinds_beyond_the_limit_share_a_count() {
        let (repeats, group) = (RepeatedEvents::default(), Arc::from("shop.v1"));
        let logged =
            (0..10_000).filter(|number| repeats.is_first(Event::Parked, &group, number.to_string())).count();
        assert_eq!(logged, KINDS + 1);
        assert!(repeats.kinds.lock().unwrap().len() <= KINDS + 1);
    }
}
