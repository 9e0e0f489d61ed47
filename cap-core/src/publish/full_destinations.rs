//! Topics whose messages the broker rejects, because a queue is full or failing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::error::TransportError;
use crate::runtime::health::FullDestination;

/// How many topics are tracked, and how many messages of each. Further topics are not tracked, and their messages always
/// wait for the first pause; further messages are not counted.
const TOPIC_LIMIT: usize = 1000;
const MESSAGE_LIMIT: usize = 10_000;

/// The pauses double from the first to the longest, and each is lengthened by up to a quarter at random, so that messages
/// do not all become due at once.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A message that this node has not tried to send for this long is no longer counted: another node has sent it, or an
/// operator has deleted it.
const FORGET_AFTER: Duration = Duration::from_mins(2);

/// How often a topic that stays full is logged again.
const REMINDER_INTERVAL: Duration = Duration::from_mins(5);

/// The topics that the broker has answered with a negative confirm, and since when. A negative confirm has neither a reason
/// nor the name of the queue, and a transport has only one exchange, so that the topic is all that is known. The pauses are
/// only in the memory of this node: another node, or this one after a restart, tries at once and finds out for itself.
#[derive(Debug, Default)]
pub(crate) struct FullDestinations(Mutex<HashMap<Box<str>, Full>>);

#[derive(Debug)]
struct Full {
    since: SystemTime,
    /// No messages are sent to it before this.
    until: Instant,
    tries: u32,
    /// The messages that wait for room, each with the last time that it was due here.
    waiting: HashMap<i64, Instant>,
    error: String,
    reminded: Instant,
}

impl Full {
    fn note(&mut self, row: i64, now: Instant) {
        if self.waiting.len() < MESSAGE_LIMIT || self.waiting.contains_key(&row) {
            self.waiting.insert(row, now);
        }
    }
}

impl FullDestinations {
    /// How long a message to this topic must wait because others were rejected recently; `None` if it can be sent.
    pub(crate) fn pause(&self, topic: &str, row: i64) -> Option<Duration> {
        let mut topics = self.lock();
        let full = topics.get_mut(topic)?;
        let now = Instant::now();
        let left = full.until.checked_duration_since(now).filter(|left| !left.is_zero())?;
        full.note(row, now);
        Some(spread(left))
    }

    /// Records that the broker has rejected a message. Returns how long the message must wait.
    pub(crate) fn rejected(&self, topic: &str, row: i64, error: &TransportError) -> Duration {
        let mut topics = self.lock();
        let now = Instant::now();
        if topics.len() >= TOPIC_LIMIT && !topics.contains_key(topic) {
            return spread(FIRST_PAUSE);
        }
        let full = topics.entry(topic.into()).or_insert_with(|| {
            tracing::warn!(topic, %error, "destination full or failing: messages to it are retried with growing pauses");
            let (since, error) = (SystemTime::now(), error.to_string());
            Full { since, until: now, tries: 0, waiting: HashMap::new(), error, reminded: now }
        });
        full.note(row, now);
        // The pause grows once for a whole batch that was rejected together.
        if full.until <= now {
            full.until = now + FIRST_PAUSE.saturating_mul(1 << full.tries.min(10)).min(LONGEST_PAUSE);
            full.tries += 1;
        }
        if full.reminded.elapsed() >= REMINDER_INTERVAL {
            full.reminded = now;
            let count = full.waiting.len();
            tracing::warn!(topic, count, error = full.error, "destination still full or failing");
        }
        spread(full.until.saturating_duration_since(now))
    }

    /// Records that the broker has accepted a message: there is room again, though perhaps not for all messages.
    pub(crate) fn taken(&self, topic: &str, row: i64) {
        let mut topics = self.lock();
        // In the usual case nothing is full.
        let Some(full) = topics.get_mut(topic) else { return };
        full.waiting.remove(&row);
        full.tries = 0;
        full.until = Instant::now();
        if full.waiting.is_empty() {
            topics.remove(topic);
            tracing::info!(topic, "destination accepts messages again");
        }
    }

    /// The topics that are full now.
    pub(crate) fn all(&self) -> Vec<FullDestination> {
        let mut topics = self.lock();
        topics.retain(|_, full| {
            full.waiting.retain(|_, last_due| last_due.elapsed() < FORGET_AFTER);
            !full.waiting.is_empty()
        });
        let mut all: Vec<_> = topics
            .iter()
            .map(|(topic, full)| FullDestination {
                destination: String::new(),
                topic: topic.to_string(),
                own_groups: Vec::new(),
                waiting: full.waiting.len(),
                since: full.since,
                error: full.error.clone(),
            })
            .collect();
        all.sort_by(|one, other| one.topic.cmp(&other.topic));
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Full>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lengthens a pause at random. The result is never zero, which would mean that the row is due since it was stored.
fn spread(pause: Duration) -> Duration {
    pause.max(Duration::from_millis(50)).mul_f64(1.0 + 0.25 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TransportErrorKind;

    fn rejected(full: &FullDestinations, topic: &str, row: i64) -> Duration {
        let error = TransportError::new(TransportErrorKind::DestinationFull, "test", "negative confirm");
        full.rejected(topic, row, &error)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_all_messages_of_the_topic_are_sent() {
        let full = FullDestinations::default();
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let pause = rejected(&full, "a", 1);
            let other = rejected(&full, "a", 2);
            assert!(
                other <= pause.mul_f64(1.25) && full.pause("a", 3).is_some() && full.pause("b", 4).is_none()
            );
            longest = longest.max(pause);
            tokio::time::sleep(pause).await;
        }
        assert!(longest >= LONGEST_PAUSE && longest <= LONGEST_PAUSE.mul_f64(1.25), "{longest:?}");
        assert_eq!(full.pause("a", 1), None);
        assert_eq!(full.all()[0].waiting, 3);
        for row in 1..=3 {
            assert_eq!(full.all().len(), 1);
            full.taken("a", row);
        }
        assert!(full.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn messages_sent_by_another_node_are_forgotten() {
        let full = FullDestinations::default();
        rejected(&full, "a", 1);
        tokio::time::sleep(FORGET_AFTER).await;
        assert!(full.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn tracked_topics_and_messages_are_bounded() {
        let full = FullDestinations::default();
        for row in 0..20_000 {
            rejected(&full, "a", row);
        }
        assert_eq!(full.all()[0].waiting, MESSAGE_LIMIT);
        for topic in 0..2000 {
            rejected(&full, &topic.to_string(), 1);
        }
        assert_eq!(full.all().len(), TOPIC_LIMIT);
    }
}
