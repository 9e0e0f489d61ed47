//! Topics whose messages the broker cannot place: a queue is full and rejects, or fails.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::error::TransportError;
use crate::runtime::health::FullDestination;

/// So many topics are followed, and so many messages of each. Of more than that nothing is counted, and each waits for
/// the first pause only.
const TOPICS: usize = 1000;
const MESSAGES: usize = 10_000;

/// The pauses double from the first to the longest, and each is lengthened by up to a quarter at random, so that not all
/// messages become due at once.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A message of which nothing was heard for so long is not this node's any more: another one has sent it, or an operator
/// has deleted it.
const FORGOTTEN: Duration = Duration::from_mins(2);

/// How often the log is reminded of a topic that stays full.
const REMINDER: Duration = Duration::from_mins(5);

/// The topics that the broker has answered with a negative confirm, and since when. It has neither a reason nor the
/// queue's name; with one exchange to a transport, the topic is all that there is to go by. The pauses are in the memory
/// of this node alone: another node, or this one after a restart, tries at once, and finds out for itself.
#[derive(Debug, Default)]
pub(crate) struct FullDestinations(Mutex<HashMap<Box<str>, Full>>);

#[derive(Debug)]
struct Full {
    since: SystemTime,
    /// Nothing is sent before this.
    until: Instant,
    tries: u32,
    /// The messages that wait for room, and when each was last heard of.
    waiting: HashMap<i64, Instant>,
    error: String,
    reminded: Instant,
}

impl Full {
    fn note(&mut self, row: i64, now: Instant) {
        if self.waiting.len() < MESSAGES || self.waiting.contains_key(&row) {
            self.waiting.insert(row, now);
        }
    }
}

impl FullDestinations {
    /// For how long a message to this topic is not sent, as others were rejected a moment ago; `None` if it may be.
    pub(crate) fn pause(&self, topic: &str, row: i64) -> Option<Duration> {
        let mut topics = self.lock();
        let full = topics.get_mut(topic)?;
        let now = Instant::now();
        let left = full.until.checked_duration_since(now).filter(|left| !left.is_zero())?;
        full.note(row, now);
        Some(spread(left))
    }

    /// The broker has rejected a message: gives back for how long it waits.
    pub(crate) fn rejected(&self, topic: &str, row: i64, error: &TransportError) -> Duration {
        let mut topics = self.lock();
        let now = Instant::now();
        if topics.len() >= TOPICS && !topics.contains_key(topic) {
            return spread(FIRST);
        }
        let full = topics.entry(topic.into()).or_insert_with(|| {
            tracing::warn!(topic, %error, "destination full or failing: messages to it are retried with growing pauses");
            let (since, error) = (SystemTime::now(), error.to_string());
            Full { since, until: now, tries: 0, waiting: HashMap::new(), error, reminded: now }
        });
        full.note(row, now);
        // The others of a batch that was rejected together wait for the same pause.
        if full.until <= now {
            full.until = now + FIRST.saturating_mul(1 << full.tries.min(10)).min(LONGEST);
            full.tries += 1;
        }
        if full.reminded.elapsed() >= REMINDER {
            full.reminded = now;
            let count = full.waiting.len();
            tracing::warn!(topic, count, error = full.error, "destination still full or failing");
        }
        spread(full.until.saturating_duration_since(now))
    }

    /// The broker has taken a message: there is room again, perhaps not for all.
    pub(crate) fn taken(&self, topic: &str, row: i64) {
        let mut topics = self.lock();
        // The usual case: nothing is full.
        let Some(full) = topics.get_mut(topic) else { return };
        full.waiting.remove(&row);
        full.tries = 0;
        full.until = Instant::now();
        if full.waiting.is_empty() {
            topics.remove(topic);
            tracing::info!(topic, "destination accepts messages again");
        }
    }

    /// What is full now.
    pub(crate) fn all(&self) -> Vec<FullDestination> {
        let mut topics = self.lock();
        topics.retain(|_, full| {
            full.waiting.retain(|_, heard| heard.elapsed() < FORGOTTEN);
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

/// Never zero, which would mean: as long due as it is old.
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
    async fn pauses_grow_for_a_topic_and_end_with_its_messages() {
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
        assert!(longest >= LONGEST && longest <= LONGEST.mul_f64(1.25), "{longest:?}");
        assert_eq!(full.pause("a", 1), None);
        assert_eq!(full.all()[0].waiting, 3);
        for row in 1..=3 {
            assert_eq!(full.all().len(), 1);
            full.taken("a", row);
        }
        assert!(full.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_node_has_sent_is_forgotten() {
        let full = FullDestinations::default();
        rejected(&full, "a", 1);
        tokio::time::sleep(FORGOTTEN).await;
        assert!(full.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let full = FullDestinations::default();
        for row in 0..20_000 {
            rejected(&full, "a", row);
        }
        assert_eq!(full.all()[0].waiting, MESSAGES);
        for topic in 0..2000 {
            rejected(&full, &topic.to_string(), 1);
        }
        assert_eq!(full.all().len(), TOPICS);
    }
}
