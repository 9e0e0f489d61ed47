//! Publishing inside the caller's own transaction.

use std::any::Any;
use std::fmt;
use std::future::Future;

use crate::error::StorageError;
use crate::storage::{NewOutgoing, Owner, Stored, TransactionId};

/// A transaction in which messages can be stored, so that they leave if and only if it commits; `S` is the storage
/// that it belongs to. What `Publish::within` takes.
///
/// Adapters implement it for a transaction of their own, which knows of the commit and hands the messages to the
/// relay in memory, and for the plain transactions of their database library, whose messages the bus looks for.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transaction that a message can be published in",
    note = "give it a transaction of the bus's own storage, such as the one that `cap_postgres::begin` returns"
)]
pub trait Within<S>: Send {
    /// Whether the storage knows this transaction by a number, which [`store_watched`](Self::store_watched) gives back: the
    /// bus then looks by itself whether it has committed. For a transaction without [`after_commit`](Self::after_commit).
    const WATCHED: bool = false;

    /// Inserts messages on this transaction. If it has no [`after_commit`](Self::after_commit) and is not
    /// [watched](Self::WATCHED), a row that is not held must be announced to all nodes when the transaction commits.
    fn store(
        &mut self,
        storage: &S,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> impl Future<Output = Result<Vec<Stored>, StorageError>> + Send;

    /// As [`store`](Self::store), with the number of the transaction, for one that is [watched](Self::WATCHED).
    fn store_watched(
        &mut self,
        storage: &S,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> impl Future<Output = Result<(Vec<Stored>, Option<TransactionId>), StorageError>> + Send {
        let stored = self.store(storage, owner, messages);
        async { Ok((stored.await?, None)) }
    }

    /// Where messages wait for the commit, to be handed to the relay in memory. `None`, the default, for a
    /// transaction whose commit nobody here learns of: its messages are inserted unheld, unless it is
    /// [watched](Self::WATCHED).
    fn after_commit(&mut self) -> Option<&mut AfterCommit> {
        None
    }
}

/// A bus, as an adapter's `begin` needs it. `cap_core::Cap` is the one implementation.
pub trait Bus {
    /// The storage as itself, which an adapter can downcast.
    fn storage(&self) -> &dyn Any;

    /// Where an adapter's transaction gathers what is to be sent after its commit.
    fn after_commit(&self) -> AfterCommit;
}

/// Messages that wait for a commit to be handed to the relay in memory, so that nothing polls for them.
///
/// An adapter's transaction keeps one ([`Bus::after_commit`]). It calls
/// [`committing`](Self::committing) right before it commits and [`committed`](Self::committed) afterwards, or
/// [`not_committed`](Self::not_committed) if the storage has said that it did not commit. Dropping it before `committing`
/// forgets the messages, as a rollback must; dropping it after that means that nobody knows whether the commit took
/// place: the bus then asks the storage, and sends those messages that are there.
pub struct AfterCommit(Box<dyn CommitDispatch>);

/// What the engine does with messages of a transaction, as the transaction goes on. Implemented by the engine.
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

    /// For the engine: its own part.
    #[doc(hidden)]
    pub fn engine_mut(&mut self) -> &mut dyn Any {
        &mut *self.0
    }

    /// The commit begins: until [`committed`](Self::committed) or [`not_committed`](Self::not_committed) nobody knows
    /// whether the messages are stored.
    pub fn committing(&mut self) {
        self.0.committing();
    }

    /// The rows are inserted by a call that begins now: for a transaction that keeps them until its commit.
    pub fn inserting(&mut self) {
        self.0.inserting();
    }

    /// The messages are not stored, and never will be.
    pub fn not_committed(self) {
        self.0.not_committed();
    }

    /// The transaction is committed, but some of the messages may have been undone in it, as with a savepoint. The
    /// storage is asked which are there, and those leave.
    pub fn committed_in_part(self) {
        self.0.committed_in_part();
    }

    /// The messages are stored for good: hands them to the relay, and notes when the delayed ones are due.
    ///
    /// How long the transaction was open makes no difference. Once half of the lease is over, the rows are leased anew
    /// before they are sent; once all of it is, whoever claims them first sends them.
    pub fn committed(self) {
        self.0.committed();
    }
}

impl fmt::Debug for AfterCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
