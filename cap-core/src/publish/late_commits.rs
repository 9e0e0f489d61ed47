//! Messages that were committed late, or perhaps: their rows are leased by this node, and the lease is renewed before
//! they are sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::relay_queue::Place;
use crate::message::Message;
use crate::runtime::backoff::Backoff;
use crate::storage::Lease;

/// So many leases are renewed in one call.
const CHUNK: usize = 1000;

/// Rows of the outbox that this node has inserted as leased by itself, and whose leases are to be renewed before the
/// relay gets them: their transaction was open for long, or nobody knows whether it committed. Those that are certain
/// have a place in the relay's queue, which bounds them; of the others there are as many at most.
pub(crate) struct LateCommits {
    limit: usize,
    rows: Mutex<BTreeMap<i64, Late>>,
    /// Something was added since somebody last waited for it.
    added: Notify,
}

/// One of them.
pub(crate) struct Late {
    pub(super) message: Arc<Message>,
    /// `None` if the commit is not certain.
    pub(super) place: Option<Place>,
    /// When the row was inserted at the earliest.
    pub(super) since: Instant,
    /// When the storage is asked for it.
    next: Instant,
    backoff: Backoff,
}

impl Late {
    pub(super) fn new(message: Arc<Message>, place: Option<Place>, since: Instant) -> Self {
        Self { message, place, since, next: Instant::now(), backoff: Backoff::default() }
    }

    fn is_certain(&self) -> bool {
        self.place.is_some()
    }
}

impl LateCommits {
    /// With room for so many whose commit is not certain.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, rows: Mutex::default(), added: Notify::new() }
    }

    pub(super) fn add(&self, id: i64, late: Late) {
        let mut rows = self.lock();
        // One more is claimed when its lease is over.
        if late.is_certain() || rows.len() < self.limit {
            rows.insert(id, late);
            self.added.notify_one();
        }
    }

    /// Waits until one is added, or returns at once if that happened since the last wait. Cancel safe.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// Every lease, to be released when the bus stops.
    pub(crate) fn all(&self) -> Vec<Lease> {
        self.lock().keys().map(|id| Lease { id: *id, epoch: 1 }).collect()
    }

    /// The leases to be renewed now. Those that are over are forgotten: the rows are due, and claimed.
    pub(super) fn to_renew(&self, lease: Duration) -> Vec<Lease> {
        let mut rows = self.lock();
        rows.retain(|_, late| late.since.elapsed() < lease);
        let now = Instant::now();
        let due = rows.iter().filter(|(_, late)| late.next <= now);
        due.take(CHUNK).map(|(id, _)| Lease { id: *id, epoch: 1 }).collect()
    }

    /// Takes a row out whose lease was renewed. Without that it is another node's or was undone; or it is not
    /// committed yet, and asked for again.
    pub(super) fn renewed(&self, id: i64, is_held: bool) -> Option<Late> {
        let mut rows = self.lock();
        let late = rows.get_mut(&id)?;
        if is_held || late.is_certain() {
            return rows.remove(&id).filter(|_| is_held);
        }
        late.next = Instant::now() + late.backoff.next();
        None
    }

    /// How long until one is to be asked for.
    pub(super) fn next(&self) -> Option<Duration> {
        let next = self.lock().values().map(|late| late.next).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, Late>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
