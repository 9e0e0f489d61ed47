//! Messages that were committed late, or whose commit is uncertain. Their rows are leased by this node, and the leases are
//! renewed before the messages are sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::relay_queue::Place;
use crate::message::Message;
use crate::runtime::backoff::Backoff;
use crate::storage::Lease;

/// How many leases are renewed in one call.
const CHUNK: usize = 1000;

/// Outbox rows that this node has inserted as leased by itself and whose leases must be renewed before the relay gets
/// them, because their transaction was open for long or it is not known whether it committed. Those that are certain have
/// a place in the relay's queue, which bounds their number; the others are bounded by `limit`.
pub(crate) struct LateCommits {
    limit: usize,
    rows: Mutex<BTreeMap<i64, Late>>,
    /// Notified when a message is added.
    added: Notify,
}

/// A message that was committed late, or whose commit is uncertain.
pub(crate) struct Late {
    pub(super) message: Arc<Message>,
    /// `None` if the commit is uncertain.
    pub(super) place: Option<Place>,
    /// The row was inserted no earlier than this.
    pub(super) since: Instant,
    /// Whether it is counted as published already.
    pub(super) is_counted: bool,
    /// When to try to renew its lease.
    next: Instant,
    backoff: Backoff,
}

impl Late {
    pub(super) fn new(message: Arc<Message>, place: Option<Place>, since: Instant, is_counted: bool) -> Self {
        Self { message, place, since, is_counted, next: Instant::now(), backoff: Backoff::default() }
    }

    fn is_certain(&self) -> bool {
        self.place.is_some()
    }
}

impl LateCommits {
    /// Creates an empty set with room for `limit` messages whose commit is uncertain.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, rows: Mutex::default(), added: Notify::new() }
    }

    pub(super) fn add(&self, id: i64, late: Late) {
        let mut rows = self.lock();
        // A message that is not added is claimed once its lease has expired.
        if late.is_certain() || rows.len() < self.limit {
            rows.insert(id, late);
            self.added.notify_one();
        }
    }

    /// Waits until a message is added, or returns at once if one was added since the last wait. Cancel safe.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// All leases, to be released when the bus stops.
    pub(crate) fn all(&self) -> Vec<Lease> {
        self.lock().keys().map(|id| Lease { id: *id, epoch: 1 }).collect()
    }

    /// The leases to renew now. Removes those that have expired: their rows are due and will be claimed.
    pub(super) fn to_renew(&self, lease: Duration) -> Vec<Lease> {
        let mut rows = self.lock();
        rows.retain(|_, late| late.since.elapsed() < lease);
        let now = Instant::now();
        let due = rows.iter().filter(|(_, late)| late.next <= now);
        due.take(CHUNK).map(|(id, _)| Lease { id: *id, epoch: 1 }).collect()
    }

    /// Takes out a row whose lease was renewed. If it could not be renewed, the row was claimed by another node or rolled
    /// back and is removed; unless its commit is uncertain, when it is tried again.
    pub(super) fn renewed(&self, id: i64, is_held: bool) -> Option<Late> {
        let mut rows = self.lock();
        let late = rows.get_mut(&id)?;
        if is_held || late.is_certain() {
            return rows.remove(&id).filter(|_| is_held);
        }
        late.next = Instant::now() + late.backoff.next();
        None
    }

    /// How long until the next renewal is due.
    pub(super) fn next(&self) -> Option<Duration> {
        let next = self.lock().values().map(|late| late.next).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, Late>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
