//! Messages on their way from the store to the relay, waiting for a commit.

use std::fmt;
use std::sync::Arc;

use cap_adapter::{AfterCommit, CommitDispatch};
use tokio::time::Instant;

use super::late_commits::Late;
use super::outbox::Outbox;
use super::relay_queue::{Place, RelayQueue};
use super::uncommitted::Uncommitted;
use crate::runtime::in_flight::InFlight;
use crate::storage::{Lease, NewOutgoing, Side};
use crate::writer::{AfterWrite, has_generated_id};

/// Messages that wait for a commit to be handed to the relay in memory, so that nothing polls for them.
///
/// The engine's side of a [`AfterCommit`], which says what its caller has to do.
pub(crate) struct PendingCommit {
    outbox: Arc<Outbox>,
    entries: Vec<Uncommitted>,
    /// Whether the storage may have the rows: from the moment when it is told to commit until its answer.
    may_be_stored: bool,
    /// Whether other nodes are to be told of what this one does not hold: nobody does it within a transaction.
    announces: bool,
}

impl PendingCommit {
    /// For messages that the storage announces itself.
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, entries: Vec::new(), may_be_stored: false, announces: false }
    }

    /// For messages that are stored in a transaction of the application's, within which nothing is announced.
    pub(crate) fn of_transaction(outbox: Arc<Outbox>) -> Self {
        Self { outbox, entries: Vec::new(), may_be_stored: false, announces: true }
    }

    /// Of messages that another had.
    pub(super) fn of(outbox: Arc<Outbox>, entries: Vec<Uncommitted>) -> Self {
        Self { outbox, entries, may_be_stored: false, announces: true }
    }

    /// The messages, for somebody else to see to.
    pub(super) fn into_uncommitted(mut self) -> Vec<Uncommitted> {
        self.may_be_stored = false;
        std::mem::take(&mut self.entries)
    }

    /// The engine's side of what an adapter's transaction keeps.
    pub(crate) fn behind(after_commit: &mut AfterCommit) -> Option<&mut Self> {
        after_commit.engine_mut().downcast_mut()
    }

    /// Takes a message in before it is stored, and decides whether this node will hold it: it does if it is due
    /// now, the relay has a place for it, and no older message waits in the store.
    pub(crate) fn admit(&mut self, row: &mut NewOutgoing) {
        self.admit_if(row, RelayQueue::place);
    }

    /// As [`admit`](Self::admit), for a transaction of the application's, which may stay open for long.
    pub(crate) fn admit_open(&mut self, row: &mut NewOutgoing) {
        self.admit_if(row, RelayQueue::open_place);
    }

    /// As [`admit`](Self::admit), for messages that are stored with an outcome. Whether the id of one was taken already is
    /// not reported: under an id of the application's there may be no row to be sent, and the claims look.
    pub(crate) fn admit_completed(&mut self, rows: &mut [NewOutgoing]) {
        for row in rows {
            if has_generated_id(row) {
                self.admit(row);
            } else {
                self.enter(row, None);
            }
        }
    }

    fn admit_if(&mut self, row: &mut NewOutgoing, place: impl FnOnce(&RelayQueue) -> Option<Place>) {
        if row.delay.is_some() || self.outbox.relay.is_backlogged() {
            return self.enter(row, None);
        }
        let place = place(&self.outbox.relay);
        if place.is_none() {
            self.outbox.relay.set_backlog(true);
        }
        self.enter(row, place);
    }

    fn enter(&mut self, row: &mut NewOutgoing, place: Option<Place>) {
        row.held = place.is_some();
        self.entries.push(Uncommitted { row: row.clone(), place, since: Instant::now(), is_part: true });
    }

    /// Takes over what another has admitted, before that is stored on the same transaction; gives back how many there
    /// were before. Until [`confirm`](Self::confirm) nobody knows whether they are part of it: the caller may drop the
    /// future that stores them, and commit.
    pub(crate) fn absorb(&mut self, mut other: Self) -> usize {
        let before = self.entries.len();
        let entries = std::mem::take(&mut other.entries);
        self.entries.extend(entries.into_iter().map(|entry| Uncommitted { is_part: false, ..entry }));
        before
    }

    /// What was [absorbed](Self::absorb) after these is stored on the transaction.
    pub(crate) fn confirm(&mut self, before: usize) {
        for entry in self.entries.iter_mut().skip(before) {
            entry.is_part = true;
        }
    }

    /// What was [absorbed](Self::absorb) after these is no part of the transaction.
    pub(crate) fn retract(&mut self, before: usize) {
        self.entries.truncate(before);
    }

    /// The commit begins: until [`committed`](Self::committed) or [`not_committed`](Self::not_committed) nobody knows
    /// whether the messages are stored.
    pub(crate) fn committing(&mut self) {
        self.may_be_stored = true;
    }

    /// The rows are inserted by a call that begins now: for a transaction that keeps them until its commit.
    pub(crate) fn inserting(&mut self) {
        self.inserted(Instant::now());
    }

    /// As [`inserting`](Self::inserting) and [`committing`](Self::committing), for a try that may not be the first.
    pub(crate) fn trying(&mut self) {
        if !self.may_be_stored {
            self.inserting();
            self.committing();
        }
    }

    /// The rows were inserted by a call that began at this time, and no earlier.
    pub(crate) fn inserted(&mut self, since: Instant) {
        for entry in &mut self.entries {
            entry.since = since;
        }
    }

    /// The messages are not stored, and never will be.
    pub(crate) fn not_committed(mut self) {
        self.may_be_stored = false;
    }

    /// The transaction is committed, but some of the messages may have been undone in it, as with a savepoint. The
    /// storage is asked which are there, and those leave.
    pub(crate) fn committed_in_part(mut self) {
        for entry in &mut self.entries {
            entry.is_part = false;
        }
        self.committed();
    }

    /// The messages are stored for good: hands them to the relay, and notes when the delayed ones are due.
    ///
    /// How long the transaction was open makes no difference. Once half of the lease is over, the rows are leased anew
    /// before they are sent; once all of it is, whoever claims them first sends them.
    pub(crate) fn committed(mut self) {
        let entries = std::mem::take(&mut self.entries);
        self.dispatch(entries, true);
    }

    fn dispatch(&self, entries: Vec<Uncommitted>, is_certain: bool) {
        let (outbox, engine) = (&*self.outbox, &*self.outbox.engine);
        let lease = engine.storage.owner.lease;
        if self.announces && entries.iter().any(|entry| entry.waits_until().is_some()) {
            outbox.open_commits.announce();
        }
        for Uncommitted { row, place, since, is_part } in entries {
            let age = since.elapsed();
            match (place, row.delay) {
                (_, Some(delay)) => engine.storage.due.note(Side::Outbox, delay.saturating_sub(age)),
                (Some(place), None) if is_certain && is_part && age < lease / 2 => {
                    let lease = Lease { id: row.id, epoch: 1 };
                    // Without a place the row is released with all else that this node holds when it stops.
                    if engine.storage.leases.add(Side::Outbox, lease, None)
                        && let Some(place) = place.permit()
                    {
                        place.send(InFlight::stored(lease, row.message, since));
                    }
                }
                // Within the lease nobody else can have claimed it. It is renewed before it is sent, as it may be over
                // sooner than the next renewal of all leases.
                (Some(place), None) if age < lease => {
                    // What may not be there takes up no place.
                    let place = is_certain.then_some(place);
                    outbox.late_commits.add(row.id, Late::new(row.message, place, since));
                    engine.storage.wake(Side::Outbox);
                }
                // Due already, here as everywhere: the first claim decides who sends it.
                (_, None) => engine.storage.wake(Side::Outbox),
            }
        }
    }
}

impl AfterWrite for PendingCommit {
    fn trying(&mut self) {
        Self::trying(self);
    }

    fn inserted(&mut self, since: Instant) {
        Self::inserted(self, since);
    }

    fn committed(self: Box<Self>) {
        Self::committed(*self);
    }

    fn not_committed(self: Box<Self>) {
        Self::not_committed(*self);
    }
}

impl CommitDispatch for PendingCommit {
    fn committing(&mut self) {
        Self::committing(self);
    }

    fn inserting(&mut self) {
        Self::inserting(self);
    }

    fn not_committed(self: Box<Self>) {
        Self::not_committed(*self);
    }

    fn committed_in_part(self: Box<Self>) {
        Self::committed_in_part(*self);
    }

    fn committed(self: Box<Self>) {
        Self::committed(*self);
    }
}

impl Drop for PendingCommit {
    fn drop(&mut self) {
        if self.may_be_stored {
            let entries = std::mem::take(&mut self.entries);
            self.dispatch(entries, false);
        }
    }
}

impl fmt::Debug for PendingCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingCommit({} messages)", self.entries.len())
    }
}
