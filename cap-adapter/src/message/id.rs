//! Message ids: generated snowflakes, or any unique text chosen by a sender.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::id_clock::{EPOCH_MS, IdClock, SystemIdClock, millis};

/// The largest worker id: ten bits.
pub const MAX_WORKER: u16 = 1023;

const WORKER_BITS: u32 = 10;
const SEQUENCE_BITS: u32 = 12;
const TICK_MASK: u64 = (1 << SEQUENCE_BITS) - 1;

/// The id of a message, unique for its sender. Deduplication is based on it.
///
/// Generated ids are decimal snowflakes. Senders in other languages may use any text, such as a GUID.
///
/// It serializes as a string. It does not implement `Deserialize`, as every type that does is a payload of handlers;
/// fields of a payload are read with [`message_id::serde`](super::message_id::serde).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// The longest id that is accepted from a user or a sender, in bytes.
    pub const MAX_LENGTH: usize = 200;

    /// Uses a text as an id, unchanged.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a number, if it fits a 63-bit column.
    #[must_use]
    pub fn as_number(&self) -> Option<i64> {
        self.0.parse().ok().filter(|id| *id > 0)
    }
}

impl From<i64> for MessageId {
    fn from(id: i64) -> Self {
        Self(id.to_string().into())
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({})", self.0)
    }
}

/// Generates ids of 41 bits of milliseconds since 2020, 10 bits of worker id and 12 bits of sequence.
///
/// Ids of one generator are strictly increasing. Ids of several nodes are unique as long as their worker ids differ,
/// and sort by time up to the difference of the clocks. The sequence of each millisecond begins at an unpredictable
/// position in the lower half of its range. The system clock is read once and then advanced by a monotonic clock, so
/// that a step of the system clock neither repeats ids nor stops the generator. If the sequence of a millisecond is
/// used up, the ids of the following milliseconds are used.
#[derive(Debug)]
pub struct IdGenerator {
    worker: AtomicU64,
    /// Milliseconds and sequence in one word, so that one compare-and-swap moves both.
    last: AtomicU64,
    clock: Arc<dyn IdClock>,
}

impl IdGenerator {
    /// Creates a generator for a worker id, which is taken modulo 1024.
    #[must_use]
    pub fn new(worker: u16) -> Self {
        Self::with_clock(worker, Arc::new(SystemIdClock::new()))
    }

    /// Creates a generator for a worker id, which is taken modulo 1024, with a clock of the caller's.
    #[doc(hidden)]
    #[must_use]
    pub fn with_clock(worker: u16, clock: Arc<dyn IdClock>) -> Self {
        Self { worker: AtomicU64::new(u64::from(worker & MAX_WORKER)), last: AtomicU64::new(0), clock }
    }

    /// Changes the worker id, after this node had to get another one.
    pub fn set_worker(&self, worker: u16) {
        self.worker.store(u64::from(worker & MAX_WORKER), Ordering::Relaxed);
    }

    /// The worker id of the generated ids.
    pub fn worker(&self) -> u16 {
        u16::try_from(self.worker.load(Ordering::Relaxed)).unwrap_or(MAX_WORKER)
    }

    /// Generates the next id, which is always positive.
    pub fn next_id(&self) -> i64 {
        let now = self.clock.now_ms();
        let begin = |ms: u64| ms << SEQUENCE_BITS | self.sequence_start(ms);
        let mut last = self.last.load(Ordering::Relaxed);
        let tick = loop {
            let next = last + 1;
            let tick = if now > last >> SEQUENCE_BITS {
                begin(now)
            } else if next & TICK_MASK == 0 {
                begin(next >> SEQUENCE_BITS)
            } else {
                next
            };
            match self.last.compare_exchange_weak(last, tick, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break tick,
                Err(seen) => last = seen,
            }
        };
        let worker = self.worker.load(Ordering::Relaxed);
        let time = tick >> SEQUENCE_BITS;
        let id = (((time << WORKER_BITS) | worker) << SEQUENCE_BITS) | (tick & TICK_MASK);
        // 41 bits of milliseconds last until 2089; the mask keeps the sign clear even then.
        i64::try_from(id & (u64::MAX >> 1)).unwrap_or(i64::MAX)
    }

    /// Where the sequence of a millisecond begins.
    fn sequence_start(&self, ms: u64) -> u64 {
        self.clock.sequence_start(ms) & (TICK_MASK >> 1)
    }

    /// The time in an id of ours: when it was generated. In an id of another sender there is no time, or elsewhere.
    #[must_use]
    pub fn time_of(id: i64) -> SystemTime {
        let ms = u64::try_from(id).unwrap_or_default() >> (WORKER_BITS + SEQUENCE_BITS);
        UNIX_EPOCH + Duration::from_millis(EPOCH_MS + ms)
    }

    /// The smallest id that any worker makes at a point in time: where a range of ids by age begins.
    #[must_use]
    pub fn first_id_at(time: SystemTime) -> i64 {
        let unix = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let ms = millis(unix).saturating_sub(EPOCH_MS).min((1 << 41) - 1);
        i64::try_from(ms << (WORKER_BITS + SEQUENCE_BITS)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn anchored(worker: u16, unix_ms: u64) -> IdGenerator {
        IdGenerator::with_clock(worker, Arc::new(SystemIdClock::anchored(unix_ms)))
    }

    #[test]
    fn ids_rise_and_never_repeat_across_threads() {
        let generator = Arc::new(IdGenerator::new(7));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let generator = Arc::clone(&generator);
                std::thread::spawn(move || (0..50_000).map(|_| generator.next_id()).collect::<Vec<_>>())
            })
            .collect();
        let mut seen = HashSet::new();
        for thread in threads {
            let ids = thread.join().unwrap();
            assert!(ids.is_sorted_by(|a, b| a < b));
            assert!(ids.iter().all(|id| *id > 0 && seen.insert(*id)));
        }
        assert_eq!(seen.len(), 200_000);
    }

    // Issue 9, row 1: ids that can be foreseen can be taken by somebody else.
    #[test]
    fn sequences_begin_at_random_in_the_lower_half() {
        let mut beginnings = HashSet::new();
        for _ in 0..50 {
            let generator = anchored(1, EPOCH_MS + 5);
            let first = generator.next_id() & 4095;
            assert!(first < 2048, "{first} leaves less than half of the sequence");
            beginnings.insert(first);
            let rest: Vec<i64> = (0..10_000).map(|_| generator.next_id()).collect();
            assert!(rest.is_sorted_by(|a, b| a < b), "also where milliseconds are lent");
        }
        assert!(beginnings.len() > 10, "{beginnings:?}");
    }

    #[test]
    fn ids_of_two_workers_differ_and_carry_their_number() {
        let (one, two) = (anchored(1, EPOCH_MS + 5), anchored(2, EPOCH_MS + 5));
        assert_ne!(one.next_id(), two.next_id());
        assert_eq!((one.next_id() >> 12) & 1023, 1);
        two.set_worker(3);
        assert_eq!((two.next_id() >> 12) & 1023, 3);
    }

    #[test]
    fn an_id_lies_after_the_start_of_its_time() {
        let before = SystemTime::now() - Duration::from_millis(5);
        let after = SystemTime::now() + Duration::from_secs(5);
        let id = IdGenerator::new(1023).next_id();
        assert!(IdGenerator::first_id_at(before) <= id);
        assert!(id < IdGenerator::first_id_at(after));
        assert!((before..after).contains(&IdGenerator::time_of(id)));
    }

    #[test]
    fn a_clock_before_2020_still_gives_positive_rising_ids() {
        let generator = anchored(0, 0);
        let first = generator.next_id();
        assert!(first > 0 && generator.next_id() > first);
    }
}
