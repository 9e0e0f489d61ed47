//! The remaining delay of a message that is to be delayed at the broker.

use std::time::Duration;

use crate::message::headers::names;
use crate::runtime::in_flight::InFlight;

/// The smallest difference between two remaining delays. A broker has a queue for each different delay.
const SHORTEST_STEP: Duration = Duration::from_secs(1);
/// The most steps that a delay is divided into.
const STEPS: u32 = 32;

/// The requested delay of a message, and how much of it has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BrokerDelay {
    asked: Duration,
    waited: Duration,
}

impl BrokerDelay {
    /// Returns `None` if the delay is over.
    pub(crate) fn new(asked: Duration, waited: Duration) -> Option<Self> {
        (waited < asked).then_some(Self { asked, waited })
    }

    /// The exact remaining delay.
    pub(crate) fn left(self) -> Duration {
        self.asked.saturating_sub(self.waited)
    }

    /// The remaining delay, rounded up so that each requested delay leads to few different ones: the time that has passed
    /// counts in whole steps of a second or a 32nd of the delay, whichever is longer. After an outage, thousands of
    /// messages have each waited for a different time, and a delay queue for each of them would cause the next outage.
    pub(crate) fn in_steps(self) -> Duration {
        let step = SHORTEST_STEP.max(self.asked / STEPS);
        let steps = u32::try_from(self.waited.as_nanos() / step.as_nanos()).unwrap_or(STEPS);
        self.asked.saturating_sub(step * steps)
    }
}

/// The delay at the broker that a message has left; `None` if it is to be sent at once.
pub(super) fn broker_delay(message: &InFlight) -> Option<BrokerDelay> {
    let milliseconds = message.message.headers.get(names::BROKER_DELAY)?.parse().ok()?;
    BrokerDelay::new(Duration::from_millis(milliseconds), message.age_now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn elapsed_time_counts_in_whole_steps() {
        for (asked, waited, expected) in [
            (200, 0, Some(200)),
            (200, 199, Some(200)),
            (200, 200, None),
            (200, 5_000, None),
            (10_000, 999, Some(10_000)),
            (10_000, 1_000, Some(9_000)),
            (10_000, 9_999, Some(1_000)),
            // An hour: steps of 112.5 seconds.
            (3_600_000, 112_499, Some(3_600_000)),
            (3_600_000, 112_500, Some(3_487_500)),
            (3_600_000, 3_599_999, Some(112_500)),
        ] {
            let delay = BrokerDelay::new(MS * asked, MS * waited);
            assert_eq!(delay.map(BrokerDelay::in_steps), expected.map(|left| MS * left), "{asked} {waited}");
        }
    }

    #[test]
    fn a_requested_delay_leads_to_few_different_queues() {
        for asked in [1, 999, 1000, 1001, 30_000, 32_001, 60_000, 86_400_000].map(|asked| MS * asked) {
            let waits = (0..10_000).filter_map(|part| BrokerDelay::new(asked, asked * part / 9_999));
            let mut delays = HashSet::new();
            for delay in waits {
                assert!(delay.in_steps() >= delay.left() && delay.in_steps() <= asked, "{delay:?}");
                delays.insert(delay.in_steps());
            }
            assert!(delays.len() <= 33, "{asked:?}: {}", delays.len());
        }
    }

    #[test]
    fn no_delay_overflows() {
        for asked in [Duration::from_nanos(1), Duration::from_millis(u64::MAX), Duration::MAX] {
            for waited in [Duration::ZERO, asked / 2, asked.saturating_sub(Duration::from_nanos(1))] {
                assert!(
                    BrokerDelay::new(asked, waited).is_some_and(|delay| delay.in_steps() >= delay.left())
                );
            }
        }
    }
}
