//! Circuit breakers, which pause a subscriber while its dependency is down: the settings, and the state machine, which
//! takes the time as an argument.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The longest duration that any option accepts: far longer than anyone needs, and well within the range of clocks.
pub(crate) const LONGEST: Duration = Duration::from_hours(36_525 * 24);

/// When a subscriber pauses instead of failing one message after another.
///
/// After a number of failures in a row, with no success in between, the subscriber's circuit opens: its messages wait in
/// the storage and its handler does not run. No attempt is counted while the circuit is open, neither for messages that
/// wait nor for those that were already being handled and fail meanwhile. When the pause is over, one message is handled
/// as a probe. If it succeeds, the circuit closes and processing resumes. If it fails, that attempt is counted as usual
/// and the next pause is twice as long, up to a limit. Each subscriber has a circuit of its own in each process.
///
/// Failures that say nothing about the dependency do not count: a permanent error, a payload that cannot be decoded, a
/// cancellation. With [`outages_only`](Self::outages_only) the only failures that count are those that the handler, or
/// the classifier of its errors, marks as an [outage](crate::HandlerError::outage), and handler timeouts, which are
/// always treated as outages.
///
/// ```
/// use std::time::Duration;
/// use cap_core::prelude::*;
///
/// let breaker = CircuitBreaker::after(5).pause(Duration::from_secs(10)).outages_only();
///
/// #[cap_subscribe("invoice.wanted", circuit = CircuitBreaker::after(3))]
/// async fn call_the_tax_office(invoice: u64) -> Result<(), HandlerError> {
///     # let _ = invoice;
///     Err(HandlerError::failed("connection refused").outage())
/// }
/// ```
///
/// In a configuration: `{"failures": 5, "pause": "10s", "longest": "5m", "outages_only": true}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CircuitBreaker {
    /// The number of failures in a row that opens the circuit. At least 1.
    pub failures: u32,
    /// The first pause. Default: 30 seconds.
    #[serde(default = "default_pause", with = "humantime_serde")]
    pub pause: Duration,
    /// The longest pause. Default: ten minutes.
    #[serde(default = "default_longest", with = "humantime_serde")]
    pub longest: Duration,
    /// Whether only timeouts and failures marked as an outage count. Default: false, every failure that is retried
    /// counts.
    #[serde(default)]
    pub outages_only: bool,
}

const fn default_pause() -> Duration {
    Duration::from_secs(30)
}

const fn default_longest() -> Duration {
    Duration::from_mins(10)
}

impl CircuitBreaker {
    /// Creates a circuit breaker that opens after this number of failures in a row.
    #[must_use]
    pub const fn after(failures: u32) -> Self {
        Self { failures, pause: default_pause(), longest: default_longest(), outages_only: false }
    }

    /// Sets the first pause.
    #[must_use]
    pub const fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Sets the longest pause.
    #[must_use]
    pub const fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Counts only timeouts and failures marked as an [outage](crate::HandlerError::outage).
    #[must_use]
    pub const fn outages_only(mut self) -> Self {
        self.outages_only = true;
        self
    }

    /// Says which setting is out of range, if one is.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        match self {
            Self { failures: 0, .. } => {
                Some("has 0 failures, so it would always be open and the handler would never run")
            }
            Self { pause, .. } if pause.is_zero() => Some("has a pause of zero, so it would never pause"),
            Self { pause, longest, .. } if pause > longest => {
                Some("has a first pause that is longer than its longest pause")
            }
            Self { longest, .. } if *longest > LONGEST => {
                Some("has a longest pause of more than 100 years (36525days)")
            }
            _ => None,
        }
    }
}

/// The state of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CircuitState {
    /// Messages are handled as usual.
    Closed,
    /// The subscriber is paused: its messages wait.
    Open,
    /// One message is being handled as a probe; the others wait for its outcome.
    Probing,
}

/// The circuit of one subscriber in this process, as reported in [`GroupHealth`](crate::GroupHealth).
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CircuitHealth {
    /// The handler's name. A function has a circuit for each topic that it subscribes to.
    pub subscriber: String,
    /// The topic or pattern of the subscription, with the prefix.
    pub topic: String,
    /// The state of the circuit.
    pub state: CircuitState,
    /// Since when it has been in this state.
    #[serde(with = "humantime_serde")]
    pub since: SystemTime,
}

/// The state machine of a circuit. The executor owns it and passes it the time.
#[derive(Debug)]
pub(crate) struct Circuit {
    settings: CircuitBreaker,
    state: State,
    /// Failures since the last success.
    run: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Instant, pause: Duration },
    Probing { pause: Duration },
}

/// What to do with a message whose handler is about to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Run,
    /// Run its handler as the probe.
    Probe,
    /// Keep it in memory until the outcome of the probe is known.
    Wait,
    /// Release it to the storage for this long.
    Rest(Duration),
}

/// What an outcome says about the dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Up,
    Down,
    /// Nothing.
    None,
}

impl Circuit {
    pub(crate) fn new(settings: CircuitBreaker) -> Self {
        Self { settings, state: State::Closed, run: 0 }
    }

    pub(crate) fn state(&self) -> CircuitState {
        match self.state {
            State::Closed => CircuitState::Closed,
            State::Open { .. } => CircuitState::Open,
            State::Probing { .. } => CircuitState::Probing,
        }
    }

    pub(crate) fn outages_only(&self) -> bool {
        self.settings.outages_only
    }

    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed => Admission::Run,
            State::Probing { .. } => Admission::Wait,
            State::Open { until, .. } if now < until => Admission::Rest(until - now),
            State::Open { pause, .. } => {
                self.state = State::Probing { pause };
                Admission::Probe
            }
        }
    }

    /// Takes the outcome of an attempt into account. If the attempt is not to be counted, returns how long its message
    /// is released to the storage for.
    pub(crate) fn record(&mut self, now: Instant, sign: Sign, probe: bool) -> Option<Duration> {
        match (sign, self.state) {
            (Sign::Up, _) => {
                self.run = 0;
                self.state = State::Closed;
                None
            }
            // This probe says nothing about the dependency; the next message is the probe.
            (Sign::None, State::Probing { pause }) if probe => {
                self.state = State::Open { until: now, pause };
                None
            }
            (Sign::None, _) => None,
            (Sign::Down, State::Closed) => {
                self.run = self.run.saturating_add(1);
                if self.run >= self.settings.failures {
                    self.open(now, self.settings.pause);
                }
                None
            }
            (Sign::Down, State::Probing { pause }) if probe => {
                self.open(now, pause.saturating_mul(2).min(self.settings.longest));
                None
            }
            // The attempt began before the circuit opened.
            (Sign::Down, State::Open { until, .. }) => Some(until.saturating_duration_since(now)),
            (Sign::Down, State::Probing { pause }) => Some(pause),
        }
    }

    fn open(&mut self, now: Instant, pause: Duration) {
        // The pause does not fit the clock: use a year instead.
        let until = now.checked_add(pause).unwrap_or_else(|| now + Duration::from_hours(24 * 365));
        self.state = State::Open { until, pause };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn open() -> (Circuit, Instant) {
        let mut circuit = Circuit::new(CircuitBreaker::after(2).pause(SECOND).longest(3 * SECOND));
        let now = Instant::now();
        assert_eq!(circuit.record(now, Sign::Down, false), None);
        assert_eq!(circuit.admit(now), Admission::Run);
        assert_eq!(circuit.record(now, Sign::Down, false), None, "the failure that opens it counts");
        (circuit, now)
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_resets_the_count() {
        let mut circuit = Circuit::new(CircuitBreaker::after(2));
        let now = Instant::now();
        for sign in [Sign::Down, Sign::Up, Sign::Down, Sign::None] {
            assert_eq!(circuit.record(now, sign, false), None);
            assert_eq!(circuit.admit(now), Admission::Run);
        }
        circuit.record(now, Sign::Down, false);
        assert_eq!(circuit.admit(now), Admission::Rest(default_pause()));
    }

    #[test]
    fn failures_while_it_is_open_are_not_counted() {
        let (mut circuit, now) = open();
        assert_eq!(circuit.record(now, Sign::Down, false), Some(SECOND));
        assert_eq!(circuit.admit(now + SECOND), Admission::Probe);
        assert_eq!(circuit.record(now + SECOND, Sign::Down, false), Some(SECOND), "it is not the probe");
        assert_eq!(circuit.state(), CircuitState::Probing);
    }

    #[test]
    fn there_is_one_probe_at_a_time_and_pauses_double() {
        let (mut circuit, start) = open();
        let mut now = start + SECOND;
        for pause in [2, 3, 3] {
            assert_eq!(circuit.admit(now), Admission::Probe);
            assert_eq!(circuit.admit(now), Admission::Wait);
            assert_eq!(circuit.record(now, Sign::Down, true), None, "a probe counts");
            assert_eq!(circuit.admit(now), Admission::Rest(pause * SECOND));
            now += pause * SECOND;
        }
        assert_eq!(circuit.admit(now), Admission::Probe);
        assert_eq!(circuit.record(now, Sign::None, true), None);
        assert_eq!(circuit.admit(now), Admission::Probe, "the outcome said nothing: the next is the probe");
        assert_eq!(circuit.record(now, Sign::Up, true), None);
        assert_eq!(circuit.admit(now), Admission::Run);
    }

    #[test]
    fn a_late_success_closes_it() {
        let (mut circuit, now) = open();
        circuit.record(now, Sign::Up, false);
        assert_eq!(circuit.admit(now), Admission::Run);
    }
}
