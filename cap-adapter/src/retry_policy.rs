//! Retry policies: pure functions from the number of failures to the next pause.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What happens after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// Another attempt after this pause; at once if it is zero.
    After(Duration),
    /// Another attempt after this pause, during which the broker keeps the message if it can.
    AtBroker(Duration),
    /// No further attempt: the message waits for an operator.
    GiveUp,
}

/// When and how often a failed message is retried.
///
/// The default is the policy that CAP documents: 3 immediate attempts, the next after 4 minutes, then one a minute,
/// 50 in all.
///
/// ```
/// use std::time::Duration;
/// use cap_core::{NextAttempt, RetryPolicy};
///
/// let policy = RetryPolicy::default();
/// assert_eq!(policy.next(1, 0.0), NextAttempt::After(Duration::ZERO));
/// assert_eq!(policy.next(3, 0.0), NextAttempt::After(Duration::from_secs(240)));
/// assert_eq!(policy.next(4, 0.0), NextAttempt::After(Duration::from_secs(60)));
/// assert_eq!(policy.next(50, 0.0), NextAttempt::GiveUp);
/// ```
///
/// In a configuration file a policy is an object with the policy's name as its key:
///
/// ```
/// # use cap_core::RetryPolicy;
/// let policy: RetryPolicy =
///     serde_json::from_str(r#"{"exponential": {"first": "1s", "limit": "10m", "attempts": 20}}"#).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum RetryPolicy {
    /// Some immediate attempts, a long pause, then attempts at a steady interval: the form of CAP's policy.
    Stepped {
        /// The number of immediate attempts, including the first.
        at_once: u32,
        /// The pause after the immediate attempts.
        #[serde(with = "humantime_serde")]
        then_after: Duration,
        /// The pause after each later attempt.
        #[serde(with = "humantime_serde")]
        every: Duration,
        /// The number of all attempts, including the first.
        attempts: u32,
    },
    /// The same pause after each attempt.
    Fixed {
        /// The pause.
        #[serde(with = "humantime_serde")]
        every: Duration,
        /// The number of all attempts, including the first.
        attempts: u32,
    },
    /// Pauses that double up to a limit, each shortened at random by up to a quarter, so that messages that failed
    /// together are not retried together.
    Exponential {
        /// The first pause.
        #[serde(with = "humantime_serde")]
        first: Duration,
        /// The longest pause.
        #[serde(with = "humantime_serde")]
        limit: Duration,
        /// The number of all attempts, including the first.
        attempts: u32,
    },
    /// These pauses in order; after the last one the message is given up.
    Delays(#[serde(with = "durations")] Vec<Duration>),
    /// These pauses in order, spent in a delay queue of the broker, so that the storage is not queried until the
    /// message comes back. The storage also records when the next attempt is due, and triggers it if the broker's
    /// copy does not come back. With a transport that cannot delay messages, and for publishing, it is the same as
    /// `Delays`.
    Broker(#[serde(with = "durations")] Vec<Duration>),
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::Stepped {
            at_once: 3,
            then_after: Duration::from_mins(4),
            every: Duration::from_mins(1),
            attempts: 50,
        }
    }
}

impl RetryPolicy {
    /// The same pause after each attempt; `attempts` includes the first.
    #[must_use]
    pub const fn fixed(every: Duration, attempts: u32) -> Self {
        Self::Fixed { every, attempts }
    }

    /// Doubling pauses from `first` up to `limit`, with jitter; `attempts` includes the first.
    #[must_use]
    pub const fn exponential(first: Duration, limit: Duration, attempts: u32) -> Self {
        Self::Exponential { first, limit, attempts }
    }

    /// An explicit list of pauses; there is one more attempt than there are pauses.
    #[must_use]
    pub fn delays(delays: impl IntoIterator<Item = Duration>) -> Self {
        Self::Delays(delays.into_iter().collect())
    }

    /// An explicit list of pauses, spent in delay queues of the broker; see [`Self::Broker`].
    #[must_use]
    pub fn broker(delays: impl IntoIterator<Item = Duration>) -> Self {
        Self::Broker(delays.into_iter().collect())
    }

    /// One attempt and no retry.
    #[must_use]
    pub const fn never() -> Self {
        Self::Delays(Vec::new())
    }

    /// Decides what happens after the failure of attempt number `failed` (from 1). `jitter` is a random number from 0
    /// to 1.
    #[must_use]
    pub fn next(&self, failed: u32, jitter: f64) -> NextAttempt {
        match self {
            Self::Stepped { attempts, .. }
            | Self::Fixed { attempts, .. }
            | Self::Exponential { attempts, .. }
                if failed >= *attempts =>
            {
                NextAttempt::GiveUp
            }
            Self::Stepped { at_once, .. } if failed < *at_once => NextAttempt::After(Duration::ZERO),
            Self::Stepped { at_once, then_after, .. } if failed == (*at_once).max(1) => {
                NextAttempt::After(*then_after)
            }
            Self::Stepped { every, .. } | Self::Fixed { every, .. } => NextAttempt::After(*every),
            Self::Exponential { first, limit, .. } => {
                let doubled = 2u32.checked_pow(failed.saturating_sub(1)).and_then(|n| first.checked_mul(n));
                let pause = doubled.unwrap_or(*limit).min(*limit);
                let jitter = if jitter.is_nan() { 0.0 } else { jitter.clamp(0.0, 1.0) };
                // Applied to a quarter, since multiplying the longest duration by a float may exceed it by rounding,
                // and panics.
                NextAttempt::After(pause.saturating_sub((pause / 4).mul_f64(jitter)))
            }
            Self::Delays(delays) => nth(delays, failed).map_or(NextAttempt::GiveUp, NextAttempt::After),
            Self::Broker(delays) => match nth(delays, failed) {
                // There is no pause to wait for.
                Some(Duration::ZERO) => NextAttempt::After(Duration::ZERO),
                Some(pause) => NextAttempt::AtBroker(pause),
                None => NextAttempt::GiveUp,
            },
        }
    }

    /// The first `limit` pauses of this policy if every attempt fails, without jitter. For display.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cap_core::RetryPolicy;
    ///
    /// let policy = RetryPolicy::exponential(Duration::from_secs(1), Duration::from_secs(5), 5);
    /// assert_eq!(policy.schedule(10), [1, 2, 4, 5].map(Duration::from_secs));
    /// ```
    #[must_use]
    pub fn schedule(&self, limit: usize) -> Vec<Duration> {
        (1..)
            .map_while(|failed| match self.next(failed, 0.0) {
                NextAttempt::After(pause) | NextAttempt::AtBroker(pause) => Some(pause),
                NextAttempt::GiveUp => None,
            })
            .take(limit)
            .collect()
    }
}

/// The pause after this failure, from 1.
fn nth(delays: &[Duration], failed: u32) -> Option<Duration> {
    delays.get(usize::try_from(failed.saturating_sub(1)).ok()?).copied()
}

/// Serializes a list of durations as text: `["5s", "30s"]`.
mod durations {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Text(#[serde(with = "humantime_serde")] Duration);

    pub(super) fn serialize<S: Serializer>(list: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|duration| Text(*duration)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<Text>::deserialize(deserializer)?.into_iter().map(|text| text.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(policy: &RetryPolicy, jitter: f64) -> Vec<f64> {
        (1..)
            .map_while(|failed| match policy.next(failed, jitter) {
                NextAttempt::After(pause) | NextAttempt::AtBroker(pause) => Some(pause.as_secs_f64()),
                NextAttempt::GiveUp => None,
            })
            .take(100)
            .collect()
    }

    #[test]
    fn the_default_is_caps() {
        let pauses = seconds(&RetryPolicy::default(), 0.7);
        assert_eq!(pauses.len(), 49, "fifty attempts have forty-nine pauses");
        assert_eq!(pauses[..4], [0.0, 0.0, 240.0, 60.0]);
        assert_eq!(pauses[4..], [60.0; 45]);
    }

    #[test]
    fn each_shape_has_its_schedule() {
        let second = Duration::from_secs(1);
        assert_eq!(seconds(&RetryPolicy::fixed(second, 3), 0.0), [1.0, 1.0]);
        assert_eq!(seconds(&RetryPolicy::exponential(second, 5 * second, 6), 0.0), [1.0, 2.0, 4.0, 5.0, 5.0]);
        assert_eq!(seconds(&RetryPolicy::exponential(second, 5 * second, 3), 1.0), [0.75, 1.5]);
        assert_eq!(seconds(&RetryPolicy::delays([5 * second, 30 * second]), 0.0), [5.0, 30.0]);
        let broker = RetryPolicy::broker([Duration::ZERO, 5 * second]);
        assert_eq!(broker.next(1, 0.0), NextAttempt::After(Duration::ZERO));
        assert_eq!(broker.next(2, 0.0), NextAttempt::AtBroker(5 * second));
        assert_eq!(broker.next(3, 0.0), NextAttempt::GiveUp);
        assert!(seconds(&RetryPolicy::never(), 0.0).is_empty());
        assert!(seconds(&RetryPolicy::fixed(second, 0), 0.0).is_empty());
    }

    #[test]
    fn policies_read_from_configuration() {
        let read = |text| serde_json::from_str::<RetryPolicy>(text);
        assert_eq!(
            read(r#"{"delays": ["5s", "2m"]}"#).unwrap(),
            RetryPolicy::delays([Duration::from_secs(5), Duration::from_secs(120)])
        );
        assert_eq!(
            read(r#"{"fixed": {"every": "1s", "attempts": 2}}"#).unwrap(),
            RetryPolicy::fixed(Duration::from_secs(1), 2)
        );
        assert!(read(r#"{"fixed": {"every": "1s", "attempts": 2, "extra": 1}}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_input_overflows_and_every_policy_ends(
            first in 0u64..=u64::MAX / 4_000_000_000, limit in 0u64..1_000_000, attempts in 0u32..200, jitter in -1.0f64..2.0,
        ) {
            let policy = RetryPolicy::exponential(Duration::from_secs(first), Duration::from_secs(limit), attempts);
            for failed in [1, 2, 31, 32, 33, 199, 200, u32::MAX] {
                match policy.next(failed, jitter) {
                    NextAttempt::After(pause) | NextAttempt::AtBroker(pause) => {
                        prop_assert!(failed < attempts);
                        prop_assert!(pause <= Duration::from_secs(limit));
                    }
                    NextAttempt::GiveUp => prop_assert!(failed >= attempts),
                }
            }
        }
    }
}
