//! Dispatch after commit: messages that are passed to the relay once they are committed.

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

/// Messages that are passed to the relay in memory once they are committed, so that nothing polls for them.
///
/// This is the engine's side of an [`AfterCommit`], whose documentation says what its caller has to do.
pub(crate) struct PendingCommit {
    outbox: Arc<Outbox>,
    entries: Vec<Uncommitted>,
    /// Whether the storage may have the rows: from the moment when the commit is requested until its answer.
    may_be_stored: bool,
    /// Whether to notify other nodes of messages that this node does not lease. That is so for transactions of the
    /// application, which announce nothing themselves.
    announces: bool,
}

impl PendingCommit {
    /// Creates one for messages that the storage announces itself.
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, entries: Vec::new(), may_be_stored: false, announces: false }
    }

    /// Creates one for messages that are stored in a transaction of the application, within which nothing is announced.
    pub(crate) fn of_transaction(outbox: Arc<Outbox>) -> Self {
        Self { outbox, entries: Vec::new(), may_be_stored: false, announces: true }
    }

    /// Creates one for messages taken [out of](Self::into_uncommitted) another.
    pub(super) fn of(outbox: Arc<Outbox>, entries: Vec<Uncommitted>) -> Self {
        Self { outbox, entries, may_be_stored: false, announces: true }
    }

    /// Returns the messages, without dispatching them.
    pub(super) fn into_uncommitted(mut self) -> Vec<Uncommitted> {
        self.may_be_stored = false;
        std::mem::take(&mut self.entries)
    }

    /// The engine's side of the value that an adapter's transaction keeps.
    pub(crate) fn behind(after_commit: &mut AfterCommit) -> Option<&mut Self> {
        after_commit.engine_mut().downcast_mut()
    }

    /// Adds a message before it is stored, and decides whether its row is inserted as leased by this node. It is if the
    /// message is due now, the relay has a place for it, and no older message waits in the storage.
    pub(crate) fn admit(&mut self, row: &mut NewOutgoing) {
        self.admit_if(row, RelayQueue::place);
    }

    /// Does the same as [`admit`](Self::admit) for a transaction of the application, which may stay open for long.
    pub(crate) fn admit_open(&mut self, row: &mut NewOutgoing) {
        self.admit_if(row, RelayQueue::open_place);
    }

    /// Does the same as [`admit`](Self::admit) for messages that are stored with an outcome. That write does not report
    /// duplicates: for a message id that the application has set there may be no new row to send, so that such messages are
    /// left to the claims.
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

    /// Takes over the messages that another one has admitted, before they are stored in the same transaction. Returns how
    /// many messages there were before. Until [`confirm`](Self::confirm) is called it is uncertain whether the new ones
    /// are part of the transaction: the caller may drop the future that stores them, and then commit.
    pub(crate) fn absorb(&mut self, mut other: Self) -> usize {
        let before = self.entries.len();
        let entries = std::mem::take(&mut other.entries);
        self.entries.extend(entries.into_iter().map(|entry| Uncommitted { is_part: false, ..entry }));
        before
    }

    /// Records that the messages [absorbed](Self::absorb) after the first `before` ones are stored in the transaction.
    pub(crate) fn confirm(&mut self, before: usize) {
        for entry in self.entries.iter_mut().skip(before) {
            entry.is_part = true;
        }
    }

    /// Removes the messages [absorbed](Self::absorb) after the first `before` ones: they are not part of the transaction.
    pub(crate) fn retract(&mut self, before: usize) {
        self.entries.truncate(before);
    }

    /// Records that the commit begins. Until [`committed`](Self::committed) or [`not_committed`](Self::not_committed) is
    /// called it is uncertain whether the messages are stored.
    pub(crate) fn committing(&mut self) {
        self.may_be_stored = true;
    }

    /// Records that the rows are inserted by a call that begins now, for a transaction that keeps them until its commit.
    pub(crate) fn inserting(&mut self) {
        self.inserted(Instant::now());
    }

    /// Does the same as [`inserting`](Self::inserting) and [`committing`](Self::committing) for a call that may be a retry.
    pub(crate) fn trying(&mut self) {
        if !self.may_be_stored {
            self.inserting();
            self.committing();
        }
    }

    /// Records that the rows were inserted by a call that began at this time, and not by an earlier one.
    pub(crate) fn inserted(&mut self, since: Instant) {
        for entry in &mut self.entries {
            entry.since = since;
        }
    }

    /// Drops the messages: they are not stored and never will be.
    pub(crate) fn not_committed(mut self) {
        self.may_be_stored = false;
    }

    /// Dispatches the messages of a committed transaction in which some of them may have been rolled back, as with a
    /// savepoint. The storage is asked which of them are stored, and those are sent.
    pub(crate) fn committed_in_part(mut self) {
        for entry in &mut self.entries {
            entry.is_part = false;
        }
        self.committed();
    }

    /// Dispatches the messages after the commit: passes them to the relay, and records when the delayed ones are due.
    ///
    /// The transaction may have been open for any length of time. If half of the lease is over, the leases are renewed
    /// before the messages are sent; if the lease has expired, the node that claims them first sends them.
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
            // What may have been rolled back, alone or with the transaction, is counted when its lease is renewed; what has
            // no lease here, and so is not looked for, when the transaction is known to be committed.
            let is_counted = is_certain && (is_part || place.is_none());
            if is_counted {
                outbox.published(&row.message);
            }
            let age = since.elapsed();
            match (place, row.delay) {
                (_, Some(delay)) => engine.storage.due.note(Side::Outbox, delay.saturating_sub(age)),
                (Some(place), None) if is_certain && is_part && age < lease / 2 => {
                    let lease = Lease { id: row.id, epoch: 1 };
                    // Without a place, because the relay drains, the lease is released with all others at shutdown.
                    if engine.storage.leases.add(Side::Outbox, lease, None)
                        && let Some(place) = place.permit()
                    {
                        place.send(InFlight::stored(lease, row.message, since));
                    }
                }
                // The lease has not expired, so that no other node can have claimed the row. It is renewed before the message
                // is sent, since it may expire before the next regular renewal.
                (Some(place), None) if age < lease => {
                    // A message that may not be stored does not occupy a place.
                    let place = is_certain.then_some(place);
                    outbox.late_commits.add(row.id, Late::new(row.message, place, since, is_counted));
                    engine.storage.wake(Side::Outbox);
                }
                // Not leased, or no longer: the row is due on every node, and the first claim decides which one sends it.
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
