//! Which rows this process works on, so that their leases are renewed, and given back at the end.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::storage::{Lease, Side};

/// The rows in this process's hands.
#[derive(Debug, Default)]
pub(crate) struct LeaseBook(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    rows: HashMap<(Side, i64), Held>,
    /// When every lease of a side was renewed last.
    renewed: HashMap<Side, Instant>,
    /// Leases that were lost after the handler's start had been noted: others take this process for dead.
    lost_after_start: Vec<Lease>,
}

#[derive(Debug)]
struct Held {
    epoch: i32,
    /// Fires when the lease is lost.
    lost: Option<CancellationToken>,
    /// The start of its handler was noted in the storage.
    started: bool,
}

impl LeaseBook {
    /// Notes that a row is worked on here. `lost` fires should another node take it over, or this one anew after it
    /// had lost it. `false`, and nothing is noted, if this node has the row under a newer lease already.
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

    /// Notes that the storage knows of the start of a suspect's handler.
    pub(crate) fn started(&self, lease: Lease) {
        if let Some(held) = self.lock().rows.get_mut(&(Side::Inbox, lease.id))
            && held.epoch == lease.epoch
        {
            held.started = true;
        }
    }

    /// The leases that were lost after their handler's start was noted, once.
    pub(crate) fn take_lost_after_start(&self) -> Vec<Lease> {
        std::mem::take(&mut self.lock().lost_after_start)
    }

    /// Puts back what could not be said to the storage.
    pub(crate) fn put_back_lost_after_start(&self, leases: Vec<Lease>) {
        self.lock().lost_after_start.extend(leases);
    }

    /// Notes that a row is done with.
    pub(crate) fn remove(&self, side: Side, lease: Lease) {
        let rows = &mut self.lock().rows;
        if rows.get(&(side, lease.id)).is_some_and(|held| held.epoch == lease.epoch) {
            rows.remove(&(side, lease.id));
        }
    }

    /// Whether the row is still in our hands, as far as we know.
    pub(crate) fn holds(&self, side: Side, lease: Lease) -> bool {
        self.lock().rows.get(&(side, lease.id)).is_some_and(|held| held.epoch == lease.epoch)
    }

    /// Notes that another node has the row by now.
    pub(crate) fn lose(&self, side: Side, lease: Lease) {
        let mut book = self.lock();
        if book.rows.get(&(side, lease.id)).is_some_and(|held| held.epoch == lease.epoch)
            && let Some(held) = book.rows.remove(&(side, lease.id))
        {
            book.lost(lease, &held);
        }
    }

    /// Everything held on one side.
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

    /// Notes that every lease of a side that was held at this moment has been renewed since.
    pub(crate) fn renewed(&self, side: Side, at: Instant) {
        self.lock().renewed.insert(side, at);
    }

    /// Whether it is longer than this since all leases of a side were renewed.
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
    fn an_old_lease_neither_removes_nor_loses_a_newer_one() {
        let book = LeaseBook::default();
        let (old, new) = (Lease { id: 1, epoch: 1 }, Lease { id: 1, epoch: 2 });
        let (lost, token) = (CancellationToken::new(), CancellationToken::new());
        book.add(Side::Inbox, old, Some(lost.clone()));
        book.add(Side::Inbox, old, Some(lost.clone()));
        assert!(!lost.is_cancelled());
        book.add(Side::Inbox, new, Some(token.clone()));
        assert!(lost.is_cancelled(), "this node has taken over from itself");
        assert!(!book.add(Side::Inbox, old, None), "and not back");
        assert!(book.holds(Side::Inbox, new));
        book.remove(Side::Inbox, old);
        book.lose(Side::Inbox, old);
        assert!(book.holds(Side::Inbox, new) && !book.holds(Side::Outbox, new));
        assert!(!token.is_cancelled());
        book.lose(Side::Inbox, new);
        assert!(token.is_cancelled() && book.all(Side::Inbox).is_empty());
    }
}
