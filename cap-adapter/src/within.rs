//! Publishing inside the caller's own transaction.

use std::any::Any;
use std::fmt;
use std::future::Future;

use crate::error::StorageError;
use crate::storage::{NewOutgoing, Owner, Stored, TransactionId};

/// A transaction in which messages can be stored, so that they are sent if and only if it commits. `S` is its
/// storage. `Publish::within` takes such a transaction.
///
/// Adapters implement it for their own transaction type, which reports its commit and gives the messages to the relay
/// in memory, and for the plain transactions of their database library, whose commits the bus detects.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transaction that a message can be published in",
    note = "give it a transaction of the bus's own storage: the one that `cap_bus::postgres::begin` or `cap_bus::sqlite::begin` returns, or one of sqlx",
    note = "a program that depends on an adapter's crate and not on `cap-bus` must name that crate, as in `use cap_postgres as _;`: the compiler ignores a crate that is never named"
)]
pub trait Within<S>: Send {
    /// Whether the storage identifies this transaction by a number, which [`store_watched`](Self::store_watched)
    /// returns: the bus then checks whether it has committed. For a transaction without
    /// [`after_commit`](Self::after_commit).
    const WATCHED: bool = false;

    /// Inserts messages on this transaction. If it has no [`after_commit`](Self::after_commit) and is not
    /// [watched](Self::WATCHED), a row that is not leased must be announced to all nodes when the transaction
    /// commits.
    fn store(
        &mut self,
        storage: &S,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> impl Future<Output = Result<Vec<Stored>, StorageError>> + Send;

    /// Like [`store`](Self::store), and returns the number of the transaction, for one that is
    /// [watched](Self::WATCHED).
    fn store_watched(
        &mut self,
        storage: &S,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> impl Future<Output = Result<(Vec<Stored>, Option<TransactionId>), StorageError>> + Send {
        let stored = self.store(storage, owner, messages);
        async { Ok((stored.await?, None)) }
    }

    /// The messages that wait for the commit, to be given to the relay in memory. `None`, the default, for a
    /// transaction that does not report its commit: its messages are inserted without a lease, unless it is
    /// [watched](Self::WATCHED).
    fn after_commit(&mut self) -> Option<&mut AfterCommit> {
        None
    }
}

/// The bus, as an adapter's `begin` needs it. `cap_core::Cap` is the only implementation.
pub trait Bus {
    /// The storage, which an adapter can downcast to its own type.
    fn storage(&self) -> &dyn Any;

    /// Creates the collection of messages that an adapter's transaction sends after its commit.
    fn after_commit(&self) -> AfterCommit;
}

/// Messages of a transaction that are given to the relay in memory after the commit, without polling.
///
/// An adapter's transaction keeps one ([`Bus::after_commit`]). It calls [`committing`](Self::committing) right before
/// it commits and [`committed`](Self::committed) afterwards, or [`not_committed`](Self::not_committed) if the storage
/// reported that it did not commit. Dropping it before `committing` discards the messages, as a rollback must.
/// Dropping it after that means that the outcome of the commit is unknown: the bus then asks the storage and sends
/// the messages that it finds.
pub struct AfterCommit(Box<dyn CommitDispatch>);

/// What the engine does with a transaction's messages at each step of the transaction. Implemented by the engine.
#[doc(hidden)]
pub trait CommitDispatch: Any + fmt::Debug + Send + Sync {
    /// As [`AfterCommit::committing`].
    fn committing(&mut self);
    /// As [`AfterCommit::inserting`].
    fn inserting(&mut self);
    /// As [`AfterCommit::not_committed`].
    fn not_committed(self: Box<Self>);
    /// As [`AfterCommit::committed_in_part`].
    fn committed_in_part(self: Box<Self>);
    /// As [`AfterCommit::committed`].
    fn committed(self: Box<Self>);
}

impl AfterCommit {
    /// For the engine.
    #[doc(hidden)]
    #[must_use]
    pub fn new(inner: Box<dyn CommitDispatch>) -> Self {
        Self(inner)
    }

    /// For the engine: its implementation.
    #[doc(hidden)]
    pub fn engine_mut(&mut self) -> &mut dyn Any {
        &mut *self.0
    }

    /// Reports that the commit begins: until [`committed`](Self::committed) or [`not_committed`](Self::not_committed)
    /// it is unknown whether the messages are stored.
    pub fn committing(&mut self) {
        self.0.committing();
    }

    /// Reports that a call to insert the rows begins, for a transaction that keeps them until its commit.
    pub fn inserting(&mut self) {
        self.0.inserting();
    }

    /// Reports that the messages are not stored and never will be.
    pub fn not_committed(self) {
        self.0.not_committed();
    }

    /// Reports that the transaction is committed but some of the messages may have been rolled back in it, as with a
    /// savepoint. The bus asks the storage which ones exist, and sends those.
    pub fn committed_in_part(self) {
        self.0.committed_in_part();
    }

    /// Reports that the messages are committed: gives them to the relay, and records the due times of delayed ones.
    ///
    /// This works however long the transaction was open. After half of the lease time the leases are renewed before
    /// the rows are sent; after all of it, the first node to claim the rows sends them.
    pub fn committed(self) {
        self.0.committed();
    }
}

impl fmt::Debug for AfterCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
