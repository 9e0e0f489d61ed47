//! The leases of the rows that this process is working on, so that they are renewed, and released at shutdown.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::storage::{Lease, Side};

/// The rows leased by this process.
#[derive(Debug, Default)]
pub(crate) struct LeaseBook(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    rows: HashMap<(Side, i64), Held>,
    /// When all leases of a side were last renewed.
    renewed: HashMap<Side, Instant>,
    /// Leases that were lost after the start of the handler was noted in the storage: to other nodes this looks as if
    /// the process had crashed in the handler.
    lost_after_start: Vec<Lease>,
}

#[derive(Debug)]
struct Held {
    epoch: i32,
    /// Cancelled when the lease is lost.
    lost: Option<CancellationToken>,
    /// Whether the start of its handler is noted in the storage.
    started: bool,
}

impl LeaseBook {
    /// Adds a lease. `lost` is cancelled if another node claims the row, or if this node claims it again after it lost
    /// the lease. Returns `false` and adds nothing if this node already has a newer lease of the row.
    pub(crate) fn add(&self, side: Side, lease: Lease, lost: Option<CancellationToken>) -> bool {
        let mut book = self.lock();
        if book.rows.get(&(side, lease.id)).is_some_and(|held| held.epoch > lease.epoch) {
            return false;
        }
        let before = book.rows.insert((side, lease.id), Held { epoch: lease.epoch, lost, started: false });
        if let Some(before) = before
            && before.epoch != lease.epoch
        {
            book.lost(Lease { id: lease.id, epoch: before.epoch }, &before);
        }
        true
    }

    /// Records that the start of a suspect's handler is noted in the storage.
    pub(crate) fn started(&self, lease: Lease) {
        if let Some(held) = self.lock().rows.get_mut(&(Side::Inbox, lease.id))
            && held.epoch == lease.epoch
        {
            held.started = true;
        }
    }

    /// Takes the leases that were lost after the start of their handler was noted in the storage.
    pub(crate) fn take_lost_after_start(&self) -> Vec<Lease> {
        std::mem::take(&mut self.lock().lost_after_start)
    }

    /// Puts back leases that could not be reported to the storage.
    pub(crate) fn put_back_lost_after_start(&self, leases: Vec<Lease>) {
        self.lock().lost_after_start.extend(leases);
    }

    /// Removes a lease whose row this node has finished with.
    pub(crate) fn remove(&self, side: Side, lease: Lease) {
        let rows = &mut self.lock().rows;
        if rows.get(&(side, lease.id)).is_some_and(|held| held.epoch == lease.epoch) {
            rows.remove(&(side, lease.id));
        }
    }

    /// Whether this node still has the lease, as far as it knows.
    pub(crate) fn holds(&self, side: Side, lease: Lease) -> bool {
        self.lock().rows.get(&(side, lease.id)).is_some_and(|held| held.epoch == lease.epoch)
    }

    /// Removes a lease that was lost, since another node has claimed the row, and cancels its `lost` token.
    pub(crate) fn lose(&self, side: Side, lease: Lease) {
        let mut book = self.lock();
        if book.rows.get(&(side, lease.id)).is_some_and(|held| held.epoch == lease.epoch)
            && let Some(held) = book.rows.remove(&(side, lease.id))
        {
            book.lost(lease, &held);
        }
    }

    /// All leases of one side, in the order of their rows.
    pub(crate) fn all(&self, side: Side) -> Vec<Lease> {
        let book = self.lock();
        let mut leases: Vec<_> = book
            .rows
            .iter()
            .filter(|((of, _), _)| *of == side)
            .map(|((_, id), held)| Lease { id: *id, epoch: held.epoch })
            .collect();
        leases.sort_unstable_by_key(|lease| lease.id);
        leases
    }

    /// Records that every lease that this node had at this time on a side has been renewed since.
    pub(crate) fn renewed(&self, side: Side, at: Instant) {
        self.lock().renewed.insert(side, at);
    }

    /// Whether all leases of a side were last renewed longer ago than `after`.
    pub(crate) fn is_stale(&self, side: Side, after: Duration) -> bool {
        self.lock().renewed.get(&side).is_none_or(|renewed| renewed.elapsed() > after)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn lost(&mut self, lease: Lease, held: &Held) {
        if let Some(lost) = &held.lost {
            lost.cancel();
        }
        if held.started {
            self.lost_after_start.push(lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_lease_survives_remove_and_lose_of_an_older_one() {
        let book = LeaseBook::default();
        let (old, new) = (Lease { id: 1, epoch: 1 }, Lease { id: 1, epoch: 2 });
        let (lost, token) = (CancellationToken::new(), CancellationToken::new());
        book.add(Side::Inbox, old, Some(lost.clone()));
        book.add(Side::Inbox, old, Some(lost.clone()));
        assert!(!lost.is_cancelled());
        book.add(Side::Inbox, new, Some(token.clone()));
        assert!(lost.is_cancelled(), "this node has claimed the row again");
        assert!(!book.add(Side::Inbox, old, None), "the older lease does not replace it");
        assert!(book.holds(Side::Inbox, new));
        book.remove(Side::Inbox, old);
        book.lose(Side::Inbox, old);
        assert!(book.holds(Side::Inbox, new) && !book.holds(Side::Outbox, new));
        assert!(!token.is_cancelled());
        book.lose(Side::Inbox, new);
        assert!(token.is_cancelled() && book.all(Side::Inbox).is_empty());
    }
}
