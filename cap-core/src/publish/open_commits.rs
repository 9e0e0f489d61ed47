//! Messages in plain transactions of the application, whose commit is not reported to this node: it checks for them.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::outgoing_metrics::{OutgoingMetrics, TopicMetrics};
use super::uncommitted::Uncommitted;
use crate::storage::{Lease, LookedFor, TransactionId};

/// The pause before the first checks of a transaction.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause between two checks of a transaction that stays open.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two announcements to other nodes; those requested meanwhile become one.
const ANNOUNCEMENT_PAUSE: Duration = Duration::from_millis(20);
/// How long a transaction is checked. One that is open for longer is left to the claims, which find its rows when they are
/// due.
const WATCHED_FOR: Duration = Duration::from_hours(1);

/// The plain transactions in which messages of this node were stored. The storage is asked which of them have ended, in
/// one call for all, after a millisecond and then at intervals that grow with the age of each transaction.
///
/// The transactions do not announce their messages themselves, by `NOTIFY`, because that would serialize them with every
/// other such commit of the server.
pub(crate) struct OpenCommits {
    open: Mutex<BTreeMap<TransactionId, Open>>,
    /// Whether other nodes are to be notified of new work.
    announces: AtomicBool,
    /// Notified when a transaction or an announcement is added.
    changed: Notify,
}

/// A transaction that was open at its last check.
pub(super) struct Open {
    /// The messages that have a place in the relay's queue, which bounds their number.
    pub(super) entries: Vec<Uncommitted>,
    /// When the first of its other messages is due.
    pub(super) waiting: Option<Instant>,
    /// The other messages, to be counted as published.
    pub(super) unleased: Unleased,
    since: Instant,
    next: Instant,
}

impl Open {
    fn new(entries: Vec<Uncommitted>, since: Instant, next: Instant) -> Self {
        Self { entries, waiting: None, unleased: Unleased::default(), since, next }
    }
}

/// The messages of a transaction that this node does not lease: how many there are of each topic.
#[derive(Default)]
pub(super) struct Unleased {
    /// The row of one of them, which tells whether the transaction was committed.
    pub(super) sample: Option<i64>,
    pub(super) counts: Vec<(Arc<TopicMetrics>, u64)>,
}

impl Unleased {
    fn add(&mut self, row: i64, metrics: Arc<TopicMetrics>) {
        self.sample.get_or_insert(row);
        match self.counts.iter_mut().find(|(of, _)| Arc::ptr_eq(of, &metrics)) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((metrics, 1)),
        }
    }

    /// Counts them if the transaction was committed.
    pub(super) fn count(self, stored: &HashSet<i64>) {
        if self.sample.is_some_and(|row| stored.contains(&row)) {
            self.counts.iter().for_each(|(metrics, count)| metrics.published.increment(*count));
        }
    }
}

impl OpenCommits {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::default(), announces: AtomicBool::new(false), changed: Notify::new() }
    }

    /// Adds messages that are stored in a transaction that may still be open, to be checked for from now on.
    pub(super) fn watch(
        &self,
        transaction: TransactionId,
        messages: Vec<Uncommitted>,
        metrics: &OutgoingMetrics,
    ) {
        let now = Instant::now();
        let mut all = self.lock();
        let new = || Open::new(Vec::new(), now, now + FIRST_PAUSE);
        let open = all.entry(transaction).or_insert_with(new);
        for entry in messages {
            match entry.waits_until() {
                None => open.entries.push(entry),
                Some(due) => {
                    open.waiting = Some(open.waiting.map_or(due, |waiting| waiting.min(due)));
                    open.unleased.add(entry.row.id, metrics.of(entry.row.message.name()));
                }
            }
        }
        // Checked soon even if the transaction is old: this may be its last message before the commit.
        open.next = open.next.min(now + FIRST_PAUSE);
        drop(all);
        self.changed.notify_one();
    }

    /// Requests that other nodes be notified soon of new work in the outbox.
    pub(super) fn announce(&self) {
        if !self.announces.swap(true, Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }

    /// Takes the request to notify other nodes, if there is one and the last announcement is long enough ago.
    pub(super) fn take_announcement(&self, last: Instant) -> bool {
        last.elapsed() >= ANNOUNCEMENT_PAUSE && self.announces.swap(false, Ordering::Relaxed)
    }

    /// All leases, to be released when the bus stops.
    pub(crate) fn all(&self) -> Vec<Lease> {
        self.lock().values().flat_map(|open| open.entries.iter().map(Uncommitted::lease)).collect()
    }

    /// The transactions to check now, and their rows.
    pub(super) fn due(&self) -> (Vec<TransactionId>, Vec<i64>) {
        // Checks that are due within a moment are made now as well.
        let now = Instant::now() + FIRST_PAUSE;
        let mut rows = Vec::new();
        let mut transactions = Vec::new();
        for (id, open) in self.lock().iter().filter(|(_, open)| open.next <= now) {
            transactions.push(*id);
            rows.extend(open.entries.iter().map(|entry| entry.lease().id).chain(open.unleased.sample));
        }
        (transactions, rows)
    }

    /// Takes out the checked transactions that have ended, and sets when to check the others again.
    pub(super) fn take_ended(
        &self,
        transactions: &[TransactionId],
        rows: &HashSet<i64>,
        found: &LookedFor,
    ) -> Vec<Open> {
        let mut all = self.lock();
        let now = Instant::now();
        let mut out = Vec::new();
        for id in transactions {
            let Some(open) = all.get_mut(id) else { continue };
            let age = now.duration_since(open.since);
            open.next = now + (age / 4).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            if !found.ended.contains(id) && age <= WATCHED_FOR {
                continue;
            }
            let Some(mut open) = all.remove(id) else { continue };
            // Messages that were added while the check ran are checked again: it does not say whether they are stored, and
            // the transaction may have ended since.
            let (seen, later) = open.entries.into_iter().partition(|entry| rows.contains(&entry.lease().id));
            open.entries = seen;
            if age <= WATCHED_FOR {
                all.extend(later_check(*id, later, open.since, now));
            }
            out.push(open);
        }
        out
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.lock().values().map(|open| open.next).min()
    }

    /// Waits until a check or an announcement is due. Cancel safe: it only waits.
    pub(super) async fn wait(&self, last_announcement: Instant) {
        loop {
            let is_due = self.announces.load(Ordering::Relaxed);
            let announcing = is_due.then(|| last_announcement + ANNOUNCEMENT_PAUSE);
            // A permit of `notify_one` is kept, so that what is added before this is polled still ends the wait.
            let changed = self.changed.notified();
            match self.next().into_iter().chain(announcing).min() {
                None => changed.await,
                Some(next) if next <= Instant::now() => return,
                Some(next) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(next) => return,
                        () = changed => {}
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TransactionId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn later_check(
    id: TransactionId,
    entries: Vec<Uncommitted>,
    since: Instant,
    next: Instant,
) -> Option<(TransactionId, Open)> {
    (!entries.is_empty()).then_some((id, Open::new(entries, since, next)))
}
