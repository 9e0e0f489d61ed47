//! Messages in plain transactions of the application's, whose commit nobody tells this node of: it looks for them.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::uncommitted::Uncommitted;
use crate::storage::{Lease, LookedFor, TransactionId};

/// Between the first looks at a transaction, and between two announcements to other nodes.
const SHORTEST: Duration = Duration::from_millis(1);
/// Between two looks at a transaction that stays open.
const LONGEST: Duration = Duration::from_secs(1);
/// So many announcements become one.
const BETWEEN_ANNOUNCEMENTS: Duration = Duration::from_millis(20);
/// A transaction that is open for longer is left to the claims, which find what is due.
const GIVE_UP: Duration = Duration::from_hours(1);

/// Plain transactions in which messages of this node were stored. The storage is asked which of them have ended, in one
/// call for all, after a millisecond and then at intervals that grow with the age of each.
///
/// A transaction that would announce its messages itself, by `NOTIFY`, would hold up every other commit of the server.
pub(crate) struct OpenCommits {
    open: Mutex<BTreeMap<TransactionId, Open>>,
    /// Other nodes are to look for work.
    announces: AtomicBool,
    /// Something was added.
    changed: Notify,
}

/// A transaction that was open at the last look.
pub(super) struct Open {
    /// Those that have a place in the relay's queue, which bounds them.
    pub(super) entries: Vec<Uncommitted>,
    /// When the first of the others is due.
    pub(super) waiting: Option<Instant>,
    since: Instant,
    next: Instant,
}

impl OpenCommits {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::default(), announces: AtomicBool::new(false), changed: Notify::new() }
    }

    /// Looks for these messages from now on: they are stored in a transaction that may still be open.
    pub(super) fn watch(&self, transaction: TransactionId, messages: Vec<Uncommitted>) {
        let now = Instant::now();
        let mut all = self.lock();
        let new = || Open { entries: Vec::new(), waiting: None, since: now, next: now + SHORTEST };
        let open = all.entry(transaction).or_insert_with(new);
        for entry in messages {
            match entry.waits_until() {
                None => open.entries.push(entry),
                Some(due) => open.waiting = Some(open.waiting.map_or(due, |waiting| waiting.min(due))),
            }
        }
        // The message may be the last one before the commit.
        open.next = open.next.min(now + SHORTEST);
        drop(all);
        self.changed.notify_one();
    }

    /// Has other nodes look for work in the outbox, soon.
    pub(super) fn announce(&self) {
        if !self.announces.swap(true, Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }

    /// Whether other nodes are to be told to look for work now; not asked again before that is due again.
    pub(super) fn take_announcement(&self, last: Instant) -> bool {
        last.elapsed() >= BETWEEN_ANNOUNCEMENTS && self.announces.swap(false, Ordering::Relaxed)
    }

    /// Every lease, to be released when the bus stops.
    pub(crate) fn all(&self) -> Vec<Lease> {
        self.lock().values().flat_map(|open| open.entries.iter().map(Uncommitted::lease)).collect()
    }

    /// The transactions to look at now, with their rows.
    pub(super) fn due(&self) -> (Vec<TransactionId>, Vec<i64>) {
        // A look that is due within a moment is done along.
        let now = Instant::now() + SHORTEST;
        let mut rows = Vec::new();
        let mut transactions = Vec::new();
        for (id, open) in self.lock().iter().filter(|(_, open)| open.next <= now) {
            transactions.push(*id);
            rows.extend(open.entries.iter().map(|entry| entry.lease().id));
        }
        (transactions, rows)
    }

    /// Takes out what was looked at and has ended, and says when to look at the others again.
    pub(super) fn looked(
        &self,
        transactions: &[TransactionId],
        rows: &HashSet<i64>,
        looked: &LookedFor,
    ) -> Vec<Open> {
        let mut all = self.lock();
        let now = Instant::now();
        let mut out = Vec::new();
        for id in transactions {
            let Some(open) = all.get_mut(id) else { continue };
            let age = now.duration_since(open.since);
            open.next = now + (age / 4).clamp(SHORTEST, LONGEST);
            if !looked.ended.contains(id) && age <= GIVE_UP {
                continue;
            }
            let Some(mut open) = all.remove(id) else { continue };
            // Of what was stored during the look nothing is known, and the transaction may have ended since.
            let (seen, later) = open.entries.into_iter().partition(|entry| rows.contains(&entry.lease().id));
            open.entries = seen;
            if age <= GIVE_UP {
                all.extend(later_look(*id, later, open.since, now));
            }
            out.push(open);
        }
        out
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.lock().values().map(|open| open.next).min()
    }

    /// Waits until something is to be done. Cancel safe.
    pub(super) async fn wait(&self, last_announcement: Instant) {
        loop {
            let is_due = self.announces.load(Ordering::Relaxed);
            let announcing = is_due.then(|| last_announcement + BETWEEN_ANNOUNCEMENTS);
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

fn later_look(
    id: TransactionId,
    entries: Vec<Uncommitted>,
    since: Instant,
    next: Instant,
) -> Option<(TransactionId, Open)> {
    (!entries.is_empty()).then_some((id, Open { entries, waiting: None, since, next }))
}
