//! The way to the relay, with its places for messages that wait for a commit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{self, OwnedPermit};

use crate::runtime::in_flight::InFlight;

/// The way to the relay.
pub(crate) struct RelayQueue {
    sender: mpsc::Sender<InFlight>,
    /// The places that open transactions have taken.
    open: OpenPlaces,
    /// More is waiting in the storage than the relay may hold: new messages queue up behind it there.
    backlog: AtomicBool,
}

/// A place in the queue, taken before a message is stored.
pub(super) enum Place {
    Own(OwnedPermit<InFlight>),
    Open(OpenPlace),
}

impl RelayQueue {
    /// A queue with room for so many messages, and its other end.
    pub(crate) fn new(capacity: usize) -> (Self, mpsc::Receiver<InFlight>) {
        let (sender, receiver) = mpsc::channel(capacity);
        let open = OpenPlaces { limit: capacity / 2, taken: Arc::new(Mutex::new(Some(Vec::new()))) };
        (Self { sender, open, backlog: AtomicBool::new(false) }, receiver)
    }

    /// The queue itself, for the claims, which reserve many places at once.
    pub(crate) fn sender(&self) -> &mpsc::Sender<InFlight> {
        &self.sender
    }

    /// Whether older messages wait in the storage.
    pub(crate) fn is_backlogged(&self) -> bool {
        self.backlog.load(Ordering::Relaxed)
    }

    pub(crate) fn set_backlog(&self, backlog: bool) {
        self.backlog.store(backlog, Ordering::Relaxed);
    }

    /// A place, if there is one.
    pub(super) fn place(&self) -> Option<Place> {
        self.permit().map(Place::Own)
    }

    pub(super) fn permit(&self) -> Option<OwnedPermit<InFlight>> {
        self.sender.clone().try_reserve_owned().ok()
    }

    /// A place for a message of a transaction that may stay open for long, if there is one.
    pub(super) fn open_place(&self) -> Option<Place> {
        self.open.take(&self.sender).map(Place::Open)
    }

    /// Takes back the places of open transactions for good: nobody knows when those end.
    pub(super) fn close_open_places(&self) {
        *self.open.lock() = None;
    }
}

impl Place {
    /// `None` if the relay, which drains, has taken it back.
    pub(super) fn permit(self) -> Option<OwnedPermit<InFlight>> {
        match self {
            Self::Own(permit) => Some(permit),
            Self::Open(place) => place.permit(),
        }
    }
}

/// The relay's places that messages of open transactions have taken: half of all at most, as nobody knows for how long
/// a transaction stays open, and the claims must always find room. They are kept here and not with the transactions, so
/// that the relay need not wait for those when it ends.
#[derive(Clone)]
struct OpenPlaces {
    limit: usize,
    /// `None` once the relay drains. Which place is whose does not matter.
    taken: Arc<Mutex<Option<Vec<OwnedPermit<InFlight>>>>>,
}

/// One of them, given back when it is dropped.
pub(super) struct OpenPlace(Option<OpenPlaces>);

impl OpenPlaces {
    /// Takes a place, if there is one.
    fn take(&self, relay: &mpsc::Sender<InFlight>) -> Option<OpenPlace> {
        let mut taken = self.lock();
        let places = taken.as_mut().filter(|places| places.len() < self.limit)?;
        places.push(relay.clone().try_reserve_owned().ok()?);
        Some(OpenPlace(Some(self.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<OwnedPermit<InFlight>>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenPlace {
    /// The place in the queue; `None` if the relay has taken it back.
    fn permit(mut self) -> Option<OwnedPermit<InFlight>> {
        self.give_back()
    }

    fn give_back(&mut self) -> Option<OwnedPermit<InFlight>> {
        self.0.take()?.lock().as_mut().and_then(Vec::pop)
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        drop(self.give_back());
    }
}
