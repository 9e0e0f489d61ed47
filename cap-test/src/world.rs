//! What the buses of one test share: the clock, the broker, and the wait for quiet.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use cap_core::Cap;
use cap_core::memory::MemoryTransport;

use crate::clock::{Clock, tick};
use crate::faults::Faults;
use crate::observer::Observer;
use crate::quiet::{Mark, Snapshot};
use crate::traffic::Traffic;

/// All buses of a test that reach each other.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Arc<Clock>,
    pub(crate) broker: MemoryTransport,
    pub(crate) traffic: Arc<Traffic>,
    services: Mutex<Vec<Weak<Service>>>,
    patience: Mutex<Duration>,
}

/// One bus, and what its test expects of it.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) cap: Cap,
    pub(crate) faults: Arc<Faults>,
    pub(crate) observer: Arc<Observer>,
    started: (SystemTime, tokio::time::Instant),
    expected_parked: Mutex<Vec<String>>,
    expected_panics: Mutex<Vec<String>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            clock: Clock::of_this_test(),
            broker: MemoryTransport::new(),
            traffic: Arc::default(),
            services: Mutex::default(),
            patience: Mutex::new(Duration::from_secs(10)),
        }
    }

    pub(crate) fn add(&self, service: &Arc<Service>) {
        lock(&self.services).push(Arc::downgrade(service));
    }

    pub(crate) fn patience(&self) -> Duration {
        *lock(&self.patience)
    }

    pub(crate) fn set_patience(&self, patience: Duration) {
        *lock(&self.patience) = patience;
    }

    /// Waits until no bus has anything to do. Returns how long until the next message is due.
    ///
    /// A message is always in a storage or at the broker, but a look at all of them takes time, in which it may go from
    /// where we have not looked yet to where we have. So nothing must have changed between two looks.
    pub(crate) async fn quiet(&self) -> Option<Duration> {
        let deadline = Instant::now() + self.patience();
        let mut last: Option<Vec<Mark>> = None;
        loop {
            let snapshots = self.snapshots().await;
            let busy = !self.traffic.under_way().is_empty()
                || snapshots.iter().any(|all| all.rows.iter().any(|row| all.is_busy(row)));
            let marks: Vec<Mark> = snapshots.iter().map(Snapshot::mark).collect();
            if !busy && last.as_ref() == Some(&marks) {
                return snapshots.iter().filter_map(Snapshot::next_due).min();
            }
            last = (!busy).then_some(marks);
            assert!(
                Instant::now() < deadline,
                "the bus has not settled within {:?}\n{}",
                self.patience(),
                self.story().await
            );
            tick().await;
        }
    }

    /// Waits until no bus has anything to do, and fails the test for what it did not expect.
    pub(crate) async fn settled(&self) {
        self.quiet().await;
        self.check().await;
    }

    /// Fails the test for what it did not expect.
    pub(crate) async fn check(&self) {
        for service in self.services() {
            let snapshot = service.snapshot().await;
            let parked = snapshot.parked().find(|row| !service.expects(&service.expected_parked, &row.name));
            if let Some(row) = parked {
                panic!(
                    "a message was parked; if the test expects that, say .expect_parked({:?})\n{}",
                    row.name,
                    snapshot.line(row)
                );
            }
            let panics = service.observer.panics();
            if let Some(panicked) =
                panics.iter().find(|panicked| !service.expects(&service.expected_panics, &panicked.topic))
            {
                panic!(
                    "the handler of {} panicked; if the test expects that, say .expect_panics({:?}): {}",
                    panicked.topic, panicked.topic, panicked.text
                );
            }
        }
    }

    /// Everything that is stored and under way, in words.
    pub(crate) async fn story(&self) -> String {
        let mut story = String::new();
        for (number, service) in self.services().iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(story, "bus {}:", number + 1);
            story.push_str(&service.snapshot().await.story());
            for topic in service.observer.running() {
                let _ = writeln!(story, "  a handler of {topic} is running");
            }
        }
        for message in self.traffic.under_way() {
            let _ = writeln!(story, "  {message}");
        }
        story
    }

    fn services(&self) -> Vec<Arc<Service>> {
        lock(&self.services).iter().filter_map(Weak::upgrade).collect()
    }

    async fn snapshots(&self) -> Vec<Snapshot> {
        let mut all = Vec::new();
        for service in self.services() {
            all.push(service.snapshot().await);
        }
        all
    }
}

impl Service {
    pub(crate) fn new(
        cap: Cap,
        faults: Arc<Faults>,
        observer: Arc<Observer>,
        started: (SystemTime, tokio::time::Instant),
    ) -> Self {
        Self {
            cap,
            faults,
            observer,
            started,
            expected_parked: Mutex::default(),
            expected_panics: Mutex::default(),
        }
    }

    pub(crate) fn expect_parked(&self, topic: String) {
        lock(&self.expected_parked).push(topic);
    }

    pub(crate) fn expect_panics(&self, topic: String) {
        lock(&self.expected_panics).push(topic);
    }

    pub(crate) async fn snapshot(&self) -> Snapshot {
        let (at, instant) = self.started;
        let now = at + instant.elapsed();
        let snapshot = Snapshot::of(&self.cap, now).await;
        snapshot.unwrap_or_else(|error| panic!("the storage of the test failed: {error}"))
    }

    /// Whether a stored topic is the one that the test names, with or without the prefix of the bus.
    pub(crate) fn is_topic(&self, stored: &str, named: &str) -> bool {
        let prefixed = |prefix: &String| stored.strip_prefix(prefix.as_str()) == Some(&format!(".{named}"));
        stored == named || self.cap.options().topic_prefix.as_ref().is_some_and(prefixed)
    }

    /// Whether a stored group is the one that the test names, in full or as in the subscription.
    pub(crate) fn is_group(&self, stored: &str, named: &str) -> bool {
        let options = self.cap.options();
        let prefix = options.group_prefix.as_ref().map(|prefix| format!("{prefix}.")).unwrap_or_default();
        stored == named || stored == format!("{prefix}{named}.{}", options.version)
    }

    fn expects(&self, topics: &Mutex<Vec<String>>, stored: &str) -> bool {
        lock(topics).iter().any(|named| self.is_topic(stored, named))
    }
}

/// These locks guard plain data that a panic cannot leave half changed, so poisoning is ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
