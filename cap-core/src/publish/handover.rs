//! Messages on their way from the store to the relay, waiting for a commit.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::OwnedPermit;
use tokio::time::Instant;

use super::open_places::OpenPlace;
use super::relay::RelayItem;
use crate::context::Context;
use crate::outgoing::has_generated_id;
use crate::storage::{Lease, NewOutgoing, Side};

/// Messages that wait for a commit to be handed to the relay in memory, so that nothing polls for them.
///
/// An adapter's transaction keeps one ([`Cap::handover`](crate::Cap::handover)) and calls
/// [`committed`](Self::committed) after its commit. Dropping it instead forgets the messages, as a rollback must.
pub struct Handover {
    context: Arc<Context>,
    entries: Vec<Entry>,
}

struct Entry {
    row: NewOutgoing,
    /// The place in the relay's queue; a message without one waits in the store.
    place: Option<Place>,
    since: Instant,
}

enum Place {
    Own(OwnedPermit<RelayItem>),
    Open(OpenPlace),
}

impl Place {
    /// `None` if the relay, which drains, has taken it back.
    fn permit(self) -> Option<OwnedPermit<RelayItem>> {
        match self {
            Self::Own(permit) => Some(permit),
            Self::Open(place) => place.permit(),
        }
    }
}

impl Handover {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, entries: Vec::new() }
    }

    /// Takes a message in before it is stored, and decides whether this node will hold it: it does if it is due
    /// now, the relay has a place for it, and no older message waits in the store.
    pub(crate) fn admit(&mut self, row: &mut NewOutgoing) {
        self.admit_if(row, |context| context.relay.clone().try_reserve_owned().ok().map(Place::Own));
    }

    /// As [`admit`](Self::admit), for a transaction of the application's, which may stay open for long.
    pub(crate) fn admit_open(&mut self, row: &mut NewOutgoing) {
        self.admit_if(row, |context| context.open_places.take(&context.relay).map(Place::Open));
    }

    /// As [`admit`](Self::admit), for a message that is stored with a settlement. Of those nobody hears whether the id
    /// was taken already: under an id of the application's there may be no row to be sent, and the claims look.
    pub(crate) fn admit_settled(&mut self, row: &mut NewOutgoing) {
        if has_generated_id(row) { self.admit(row) } else { self.enter(row, None) }
    }

    fn admit_if(&mut self, row: &mut NewOutgoing, place: impl FnOnce(&Context) -> Option<Place>) {
        if row.delay.is_some() || self.context.is_backlogged() {
            return self.enter(row, None);
        }
        let place = place(&self.context);
        if place.is_none() {
            self.context.backlog.store(true, Ordering::Relaxed);
        }
        self.enter(row, place);
    }

    fn enter(&mut self, row: &mut NewOutgoing, place: Option<Place>) {
        row.held = place.is_some();
        self.entries.push(Entry { row: row.clone(), place, since: Instant::now() });
    }

    /// Takes over what another has admitted, once that is stored on the same transaction.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// The messages are stored for good: hands them to the relay, and notes when the delayed ones are due.
    pub fn committed(self) {
        let context = self.context;
        // After half the lease another node may be about to take the rows; then they go the way of the claims.
        let fresh = context.owner.lease / 2;
        for Entry { row, place, since } in self.entries {
            match (place, row.delay) {
                (_, Some(delay)) => context.due.note(Side::Outbox, delay.saturating_sub(since.elapsed())),
                (Some(place), None) if since.elapsed() < fresh => {
                    let lease = Lease { id: row.id, epoch: 1 };
                    context.leases.add(Side::Outbox, lease, None);
                    // Without it the row is given back with all else that this node holds when it stops.
                    if let Some(place) = place.permit() {
                        place.send(RelayItem::fresh(lease, row.message));
                    }
                }
                (Some(_), None) => {
                    let left = context.owner.lease.saturating_sub(since.elapsed());
                    context.due.note(Side::Outbox, left);
                }
                (None, None) => context.wake(Side::Outbox),
            }
        }
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handover({} messages)", self.entries.len())
    }
}
