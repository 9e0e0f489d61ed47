//! The clock that message ids are generated from.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::RefUnwindSafe;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds from the Unix epoch to 2020-01-01T00:00:00Z, the epoch of the generated ids.
pub(super) const EPOCH_MS: u64 = 1_577_836_800_000;

/// Determines the time in generated ids and where the sequence of each millisecond begins.
///
/// A bus uses [`SystemIdClock`]. A simulation gives its own, so that two runs generate the same ids.
pub trait IdClock: fmt::Debug + Send + Sync + RefUnwindSafe {
    /// The time in milliseconds since the epoch of the ids, 2020-01-01T00:00:00Z. It never decreases.
    fn now_ms(&self) -> u64;

    /// A number that determines the first sequence of a millisecond, always the same for one millisecond. The
    /// generator uses its lowest eleven bits.
    fn sequence_start(&self, ms: u64) -> u64;
}

/// The clock of a bus: the system clock, read once and then advanced by a monotonic clock, with sequences that begin
/// at an unpredictable position.
#[derive(Debug)]
pub struct SystemIdClock {
    anchor: Instant,
    anchor_ms: u64,
    /// A keyed hash of the millisecond with a random key.
    sequence_starts: RandomState,
}

impl SystemIdClock {
    /// Reads the system clock.
    #[must_use]
    pub fn new() -> Self {
        Self::anchored(millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)))
    }

    /// A clock that shows this Unix time now.
    pub(super) fn anchored(unix_ms: u64) -> Self {
        Self {
            anchor: Instant::now(),
            anchor_ms: unix_ms.saturating_sub(EPOCH_MS),
            sequence_starts: RandomState::new(),
        }
    }
}

impl Default for SystemIdClock {
    fn default() -> Self {
        Self::new()
    }
}

impl IdClock for SystemIdClock {
    fn now_ms(&self) -> u64 {
        self.anchor_ms + millis(self.anchor.elapsed())
    }

    fn sequence_start(&self, ms: u64) -> u64 {
        self.sequence_starts.hash_one(ms)
    }
}

/// A duration in whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
