//! The queue to the relay, and the places in it that are reserved for messages whose commit is pending.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{self, OwnedPermit};

use crate::runtime::in_flight::InFlight;

/// The sending end of the queue to the relay.
pub(crate) struct RelayQueue {
    sender: mpsc::Sender<InFlight>,
    /// The places that open transactions have taken.
    open: OpenPlaces,
    /// Whether older messages wait in the storage because the relay has no room for them. New messages then wait behind
    /// them there.
    backlog: AtomicBool,
}

/// A place in the queue, reserved before its message is stored.
pub(super) enum Place {
    Own(OwnedPermit<InFlight>),
    Open(OpenPlace),
}

impl RelayQueue {
    /// Creates a queue with room for `capacity` messages, and its receiving end.
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

    /// Reserves a place, if one is free.
    pub(super) fn place(&self) -> Option<Place> {
        self.permit().map(Place::Own)
    }

    pub(super) fn permit(&self) -> Option<OwnedPermit<InFlight>> {
        self.sender.clone().try_reserve_owned().ok()
    }

    /// Reserves a place for a message of a transaction that may stay open for long, if one is free.
    pub(super) fn open_place(&self) -> Option<Place> {
        self.open.take(&self.sender).map(Place::Open)
    }

    /// Takes back the places of open transactions for good: the relay drains, and it is not known when they end.
    pub(super) fn close_open_places(&self) {
        *self.open.lock() = None;
    }
}

impl Place {
    /// Converts it into a permit to send; `None` if the relay has taken the place back to drain.
    pub(super) fn permit(self) -> Option<OwnedPermit<InFlight>> {
        match self {
            Self::Own(permit) => Some(permit),
            Self::Open(place) => place.permit(),
        }
    }
}

/// The places that messages of open transactions have taken. These are at most half of all places, since it is not known
/// how long a transaction stays open and the claims must always find room. The permits are kept here and not with the
/// transactions, so that the relay need not wait for those when it ends.
#[derive(Clone)]
struct OpenPlaces {
    limit: usize,
    /// `None` once the relay drains. The permits are interchangeable.
    taken: Arc<Mutex<Option<Vec<OwnedPermit<InFlight>>>>>,
}

/// A place that an open transaction has taken; dropping it frees the place.
pub(super) struct OpenPlace(Option<OpenPlaces>);

impl OpenPlaces {
    /// Takes a place, if one is free.
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
    /// Converts it into a permit to send; `None` if the relay has taken the place back.
    fn permit(mut self) -> Option<OwnedPermit<InFlight>> {
        self.take_permit()
    }

    fn take_permit(&mut self) -> Option<OwnedPermit<InFlight>> {
        self.0.take()?.lock().as_mut().and_then(Vec::pop)
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        drop(self.take_permit());
    }
}
