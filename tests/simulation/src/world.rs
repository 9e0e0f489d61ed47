//! What all nodes of a run share: the store, the broker, the ledger, chance, and the clock.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cap_core::memory::{MemoryStorage, MemoryTransport};
use cap_ledger::{Event, Ledger};
use fastrand::Rng;
use tokio::time::Instant;

use crate::job::{Act, Job};
use crate::plan::{Plan, within};

/// So many calls to the store in one run mean that somebody spins.
const TOO_MANY_CALLS: u64 = 300_000;

/// What all nodes of a run share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) storage: MemoryStorage,
    pub(crate) transport: MemoryTransport,
    start: Instant,
    calm: AtomicBool,
    store_away: AtomicBool,
    full: AtomicBool,
    calls: AtomicU64,
    /// How many calls to the store are under way.
    under_way: AtomicU64,
    runs: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    rng: Rng,
    ledger: Ledger,
    jobs: HashMap<u64, Job>,
    /// How often each job was begun in each group.
    begun: HashMap<(u64, &'static str), usize>,
    /// Rows that the store refuses, whoever writes them.
    refused: HashSet<i64>,
    /// Rows that the store has taken, and can no longer refuse.
    taken: HashSet<i64>,
    /// The job and the group that a row of the inbox belongs to.
    rows: HashMap<i64, (String, String)>,
    /// What is wrong beyond the ledger.
    problems: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, plan: Plan) -> Self {
        let inner = Inner {
            rng: Rng::with_seed(seed),
            ledger: Ledger::default(),
            jobs: HashMap::new(),
            begun: HashMap::new(),
            refused: HashSet::new(),
            taken: HashSet::new(),
            rows: HashMap::new(),
            problems: Vec::new(),
        };
        Self {
            plan,
            storage: MemoryStorage::new(),
            transport: MemoryTransport::new(),
            start: Instant::now(),
            calm: AtomicBool::new(false),
            store_away: AtomicBool::new(false),
            full: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            runs: AtomicU64::new(0),
            inner: Mutex::new(inner),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the start, beginning with 1.
    pub(crate) fn now(&self) -> u64 {
        millis(self.start.elapsed()) + 1
    }

    pub(crate) fn note(&self, event: Event) {
        self.note_at(self.now(), event);
    }

    pub(crate) fn note_at(&self, at: u64, event: Event) {
        self.lock().ledger.note(at, event);
    }

    pub(crate) fn with_ledger<R>(&self, look: impl FnOnce(&mut Ledger) -> R) -> R {
        look(&mut self.lock().ledger)
    }

    /// How often the broker has refused a message as such.
    pub(crate) fn sends_refused(&self, name: &str) -> u32 {
        let is_one =
            |event: &Event| matches!(event, Event::SendRefused { message } if message.as_str() == name);
        let inner = self.lock();
        let refused = inner.ledger.entries().iter().filter(|entry| is_one(&entry.event)).count();
        u32::try_from(refused).unwrap_or(u32::MAX)
    }

    /// Something is wrong that no class of the ledger has a name for.
    pub(crate) fn problem(&self, what: impl Into<String>) {
        self.lock().problems.push(what.into());
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.lock().problems.clone()
    }

    /// Whether something that is this likely happens now. Nothing goes wrong any more once all is calm.
    pub(crate) fn chance(&self, likely: f64) -> bool {
        likely > 0.0 && !self.calm.load(Ordering::Relaxed) && self.lock().rng.f64() < likely
    }

    pub(crate) fn pick(&self, count: usize) -> usize {
        self.lock().rng.usize(0..count.max(1))
    }

    pub(crate) fn within(&self, longest: Duration) -> Duration {
        within(&mut self.lock().rng, longest)
    }

    /// A generator of its own for a part of the run.
    pub(crate) fn rng(&self) -> Rng {
        self.lock().rng.fork()
    }

    /// From now on nothing goes wrong.
    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
        self.take_store_away(false);
        self.fill_queues(false);
        self.transport.set_available(true);
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub(crate) fn take_store_away(&self, away: bool) {
        self.store_away.store(away, Ordering::Relaxed);
    }

    /// Whether the broker's queues have no room for anything.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(crate) fn fill_queues(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Whether the store answers, as far as the store is concerned; and a count of the question.
    pub(crate) fn store_answers(&self) -> bool {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if calls == TOO_MANY_CALLS {
            self.problem(format!("more than {calls} calls to the store: somebody spins"));
        }
        calls < TOO_MANY_CALLS && !self.store_away.load(Ordering::Relaxed)
    }

    /// Notes a call to the store as long as the guard lives.
    pub(crate) fn called(&self) -> Called<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Called(self)
    }

    /// Whether any call to the store is under way.
    pub(crate) fn is_called(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Makes the store refuse a row for good.
    pub(crate) fn refuse(&self, row: i64) {
        self.lock().refused.insert(row);
    }

    /// Notes rows that the store has taken.
    pub(crate) fn take(&self, rows: impl Iterator<Item = i64>) {
        self.lock().taken.extend(rows);
    }

    pub(crate) fn has_taken(&self, row: i64) -> bool {
        self.lock().taken.contains(&row)
    }

    pub(crate) fn refuses(&self, row: i64) -> bool {
        self.lock().refused.contains(&row)
    }

    pub(crate) fn know_row(&self, row: i64, job: String, group: String) {
        self.lock().rows.insert(row, (job, group));
    }

    /// The job and the group that a row of the inbox belongs to.
    pub(crate) fn job_of(&self, row: i64) -> Option<(String, String)> {
        self.lock().rows.get(&row).cloned()
    }

    pub(crate) fn add_job(&self, n: u64, job: Job) {
        self.lock().jobs.insert(n, job);
    }

    /// Begins a job in a group: a number for the run, what its handler is to do, and whether it publishes.
    pub(crate) fn begin(&self, n: u64, group: &'static str) -> (u64, Act, bool) {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        let begun = inner.begun.entry((n, group)).or_default();
        let index = *begun;
        *begun += 1;
        let job = inner.jobs.get(&n);
        let act = job.map_or(Act::Succeed(Duration::ZERO), |job| job.act(group, index));
        (run, act, job.is_some_and(|job| job.publishes))
    }
}

/// A call that is under way.
pub(crate) struct Called<'a>(&'a World);

impl Drop for Called<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
