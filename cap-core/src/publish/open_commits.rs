//! Messages in plain transactions of the application's, whose commit nobody tells this node of: it looks for them.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::pending_commit::{Entry, PendingCommit};
use crate::error::{StorageError, StorageErrorKind};
use crate::runtime::backoff::Backoff;
use crate::runtime::context::Context;
use crate::storage::{Lease, LookedFor, Side, TransactionId};

/// Between the first looks at a transaction, and between two announcements to other nodes.
const SHORTEST: Duration = Duration::from_millis(1);
/// Between two looks at a transaction that stays open.
const LONGEST: Duration = Duration::from_secs(1);
/// So many announcements become one.
const BETWEEN_ANNOUNCEMENTS: Duration = Duration::from_millis(20);
/// A transaction that is open for longer is left to the claims, which find what is due.
const GIVE_UP: Duration = Duration::from_hours(1);
/// A look that takes longer is given up and tried again.
const LIMIT: Duration = Duration::from_secs(10);

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
struct Open {
    /// Those that have a place in the relay's queue, which bounds them.
    entries: Vec<Entry>,
    /// When the first of the others is due.
    waiting: Option<Instant>,
    since: Instant,
    next: Instant,
}

impl OpenCommits {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::default(), announces: AtomicBool::new(false), changed: Notify::new() }
    }

    /// Looks for these messages from now on: they are stored in a transaction that may still be open.
    pub(crate) fn watch(&self, transaction: TransactionId, pending: PendingCommit) {
        let now = Instant::now();
        let mut all = self.lock();
        let new = || Open { entries: Vec::new(), waiting: None, since: now, next: now + SHORTEST };
        let open = all.entry(transaction).or_insert_with(new);
        for entry in pending.into_entries() {
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

    /// Every lease, to be released when the bus stops.
    pub(crate) fn all(&self) -> Vec<Lease> {
        self.lock().values().flat_map(|open| open.entries.iter().map(Entry::lease)).collect()
    }

    /// The transactions to look at now, with their rows.
    fn due(&self) -> (Vec<TransactionId>, Vec<i64>) {
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
    fn looked(&self, transactions: &[TransactionId], rows: &HashSet<i64>, looked: &LookedFor) -> Vec<Open> {
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

    fn next(&self) -> Option<Instant> {
        self.lock().values().map(|open| open.next).min()
    }

    /// Waits until something is to be done. Cancel safe.
    async fn wait(&self, last_announcement: Instant) {
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
    entries: Vec<Entry>,
    since: Instant,
    next: Instant,
) -> Option<(TransactionId, Open)> {
    (!entries.is_empty()).then_some((id, Open { entries, waiting: None, since, next }))
}

/// Looks for messages in plain transactions until the relay drains; what is still open then is released with all else.
pub(crate) async fn run_open_commits(context: Arc<Context>) {
    let task = context.stop.relay.clone();
    let looking = async {
        let mut backoff = Backoff::default();
        let mut last_announcement = Instant::now();
        loop {
            context.open_commits.wait(last_announcement).await;
            let mut result = look(&context).await;
            if last_announcement.elapsed() >= BETWEEN_ANNOUNCEMENTS
                && context.open_commits.announces.swap(false, Ordering::Relaxed)
            {
                last_announcement = Instant::now();
                result = result.and(within_limit(&context, context.storage.announce(Side::Outbox)).await);
            }
            match result {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    context.storage_health.down(&error);
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    };
    task.run_until_cancelled(looking).await;
}

/// Looks at what is due, and hands over what is committed.
async fn look(context: &Arc<Context>) -> Result<(), StorageError> {
    let (transactions, rows) = context.open_commits.due();
    if transactions.is_empty() {
        return Ok(());
    }
    let looked = within_limit(context, context.storage.look_for(&transactions, &rows)).await?;
    let rows = rows.into_iter().collect();
    for Open { entries, waiting, .. } in context.open_commits.looked(&transactions, &rows, &looked) {
        // Of an ended transaction a row that is not there was undone with it, or with a savepoint.
        let there = entries.into_iter().filter(|entry| looked.stored.contains(&entry.lease().id));
        PendingCommit::of(Arc::clone(context), there.collect()).committed();
        if let Some(due) = waiting {
            context.due.note(Side::Outbox, due.saturating_duration_since(Instant::now()));
            context.open_commits.announce();
        }
    }
    Ok(())
}

async fn within_limit<T>(
    context: &Context,
    call: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
    tokio::time::timeout(LIMIT, call).await.unwrap_or_else(|_| {
        let text = "looking for committed messages took too long";
        Err(StorageError::new(StorageErrorKind::Unavailable, context.storage.name(), text))
    })
}
