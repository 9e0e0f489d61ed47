//! The relay's places that open transactions have taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{OwnedPermit, Sender};

use super::relay::RelayItem;

/// The relay's places that messages of open transactions have taken: half of all at most, as nobody knows for how long
/// a transaction stays open, and the claims must always find room. They are kept here and not with the transactions, so
/// that the relay need not wait for those when it ends.
#[derive(Clone)]
pub(crate) struct OpenPlaces {
    limit: usize,
    /// `None` once the relay drains. Which place is whose does not matter.
    taken: Arc<Mutex<Option<Vec<OwnedPermit<RelayItem>>>>>,
}

/// One of them, given back when it is dropped.
pub(crate) struct OpenPlace(Option<OpenPlaces>);

impl OpenPlaces {
    pub(crate) fn of(relay: &Sender<RelayItem>) -> Self {
        Self { limit: relay.max_capacity() / 2, taken: Arc::new(Mutex::new(Some(Vec::new()))) }
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&self, relay: &Sender<RelayItem>) -> Option<OpenPlace> {
        let mut taken = self.lock();
        let places = taken.as_mut().filter(|places| places.len() < self.limit)?;
        places.push(relay.clone().try_reserve_owned().ok()?);
        Some(OpenPlace(Some(self.clone())))
    }

    /// Takes back all places for good.
    pub(crate) fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<OwnedPermit<RelayItem>>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenPlace {
    /// The place in the queue; `None` if the relay has taken it back.
    pub(crate) fn permit(mut self) -> Option<OwnedPermit<RelayItem>> {
        self.give_back()
    }

    fn give_back(&mut self) -> Option<OwnedPermit<RelayItem>> {
        self.0.take()?.lock().as_mut().and_then(Vec::pop)
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        drop(self.give_back());
    }
}
