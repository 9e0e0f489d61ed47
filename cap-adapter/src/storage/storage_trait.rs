//! The trait of a storage.

use std::any::Any;
use std::collections::HashSet;
use std::future::Future;

use tokio_util::sync::CancellationToken;

use super::app_transaction::{LookedFor, TransactionId};
use super::claim::{ClaimRequest, Claimed, Claims, StartMark};
use super::node::{Expiry, NodeRequest, Owner};
use super::row::{Lease, Side};
use super::wake::Wake;
use super::write_batch::{WriteBatch, WriteReport};
use crate::error::StorageError;
use crate::shared_key::SharedKey;

/// The storage of a bus.
///
/// Methods take slices or batches, so that one round trip serves many messages. Each call is atomic: it takes effect
/// completely or, on an error, not at all. After a lost connection the caller does not know which; all calls are safe
/// to repeat. Several calls run concurrently, from several nodes.
///
/// The future of every method may be dropped before it is ready; the storage must then roll back or finish, and stay
/// usable.
pub trait Storage: Send + Sync + 'static {
    /// The storage's display name: `PostgreSQL`.
    fn name(&self) -> &'static str;

    /// Checks the settings without touching the network. Called once, first.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind) with what is wrong.
    fn check(&self) -> Result<(), StorageError>;

    /// Creates or migrates the schema. Called until it succeeds, before anything else; safe to call from many nodes
    /// at once and on an existing schema.
    fn initialize(&self) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Checks that the storage can encode these names: the groups of a bus, the topics that they subscribe to, its
    /// version and its node. Called after [`initialize`](Self::initialize), before anything is stored. The default
    /// accepts all names.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind) with the name that cannot be encoded, and why.
    fn check_names(&self, names: &[&str]) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = names;
        std::future::ready(Ok(()))
    }

    /// Claims a worker id from 0 to 1023 for this node: the requested one, or one that no live node has. A requested
    /// id that another live node has is an error of the kind `Unusable`.
    fn join(&self, request: &NodeRequest) -> impl Future<Output = Result<u16, StorageError>> + Send;

    /// Renews the claim on the worker id. Returns `false` if it was lost and the node must join again.
    fn keep_alive(
        &self,
        request: &NodeRequest,
        worker: u16,
    ) -> impl Future<Output = Result<bool, StorageError>> + Send;

    /// Releases the worker id.
    fn leave(&self, node: &str, worker: u16) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Returns the key that all nodes of this storage share. The first call stores `fresh`; every later call, by any
    /// node, returns the stored key. Nodes use it to prove that a retry copy from the broker was sent by one of them:
    /// anyone who can read the key can forge that proof.
    ///
    /// Optional. Without a key the storage keeps all retries, and the broker none.
    fn shared_key(
        &self,
        fresh: &SharedKey,
    ) -> impl Future<Output = Result<Option<SharedKey>, StorageError>> + Send {
        let _ = fresh;
        async { Ok(None) }
    }

    /// Writes a batch in one transaction.
    fn write(
        &self,
        owner: &Owner,
        batch: &WriteBatch,
    ) -> impl Future<Output = Result<WriteReport, StorageError>> + Send;

    /// Claims due rows, the longest due first, skipping those that other nodes are claiming. A row that cannot be
    /// read is set to [`Status::Failed`](crate::storage::Status::Failed) with [`Reason::Corrupt`](crate::storage::Reason::Corrupt) and left out.
    fn claim(
        &self,
        owner: &Owner,
        request: &ClaimRequest,
    ) -> impl Future<Output = Result<Claims, StorageError>> + Send;

    /// Claims inbox rows before they are due, whose retry copy the broker has delivered. A row is claimed if the
    /// attempt under this lease was its last change: it is [`Status::Retrying`](crate::storage::Status::Retrying), has no owner, and its epoch is
    /// unchanged. Returns, in the same order, the claim or `None` (the row was claimed, re-run, deleted or parked
    /// meanwhile). A row that cannot be read is handled as in [`claim`](Self::claim).
    ///
    /// Optional: without it the rows are claimed when they are due.
    fn claim_waiting(
        &self,
        owner: &Owner,
        leases: &[Lease],
    ) -> impl Future<Output = Result<Vec<Option<Claimed>>, StorageError>> + Send {
        let _ = owner;
        let none = leases.iter().map(|_| None).collect();
        async move { Ok(none) }
    }

    /// Records under their leases that handlers of inbox suspects start, or that a running one is no longer the only
    /// one; the last record under a lease counts. Returns, in the same order, which leases are still valid; nothing
    /// is recorded for the others. One statement for all. It is only called for [suspects](crate::storage::Suspect).
    ///
    /// If a lease with a recorded start that is `alone` expires without a release, the claim that finds the row
    /// counts one crash, sets the last error, and records the crash among the attempts, with the number of the
    /// running attempt, the name of the dead node, and [this text](crate::storage::crash_text). It does not count as an attempt. A
    /// re-run resets the crashes to zero.
    ///
    /// Optional: a storage without it claims no suspects.
    fn mark_started(
        &self,
        owner: &Owner,
        marks: &[StartMark],
    ) -> impl Future<Output = Result<Vec<bool>, StorageError>> + Send {
        let _ = owner;
        let held = vec![true; marks.len()];
        async move { Ok(held) }
    }

    /// Takes back the crashes that were counted for these leases, with their records, because the process that had
    /// them is alive. Does nothing for a lease without a counted crash.
    fn withdraw_crashes(&self, leases: &[Lease]) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = leases;
        async { Ok(()) }
    }

    /// Renews leases: each lasts the full lease time from now. Returns, in the same order, which are still valid.
    fn renew(
        &self,
        owner: &Owner,
        side: Side,
        leases: &[Lease],
    ) -> impl Future<Output = Result<Vec<bool>, StorageError>> + Send;

    /// Returns which of these transactions have ended, committed or not, and which of these outbox rows, inserted by
    /// this node in one of them, exist unchanged: leased by it, and not claimed since. Both are as of one moment, so
    /// that a missing row of an ended transaction will never exist. Waits for no transaction.
    ///
    /// Optional: only for a storage whose [`Within`](crate::Within) returns the numbers of its transactions.
    fn look_for(
        &self,
        transactions: &[TransactionId],
        rows: &[i64],
    ) -> impl Future<Output = Result<LookedFor, StorageError>> + Send {
        let _ = rows;
        let ended = transactions.iter().copied().collect();
        async move { Ok(LookedFor { ended, stored: HashSet::new() }) }
    }

    /// Wakes the [listeners](Self::listen) of other nodes for work on a side: for messages stored in transactions of
    /// the application, which announce nothing themselves. Optional for a storage without listeners.
    fn announce(&self, side: Side) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = side;
        async { Ok(()) }
    }

    /// Deletes expired messages with their state and attempts, the oldest first: those without a state row by age,
    /// those with one by its expiry. Returns how many it deleted from the outbox and from the inbox; the caller
    /// repeats the call while a number equals the limit.
    fn delete_expired(
        &self,
        expiry: &Expiry,
    ) -> impl Future<Output = Result<(u64, u64), StorageError>> + Send;

    /// Listens for work until cancelled, and calls [`Wake::wake`] when rows may have become due through another
    /// process or a plain transaction. A storage without such a signal waits for the token. If the connection is
    /// lost, the storage reconnects and wakes both sides once, since it may have missed a signal.
    fn listen(&self, wake: Wake, cancelled: CancellationToken) -> impl Future<Output = ()> + Send {
        let _ = wake;
        async move { cancelled.cancelled().await }
    }

    /// Returns a second handle to the storage with its own connections, through which the bus renews its leases and
    /// its worker id on a separate thread and runtime, so that it keeps them while a handler blocks the main runtime.
    /// The handle connects at its first call, all of its calls come from that runtime, and they must not wait for
    /// anything that belongs to another runtime. It is used only to renew (`renew`, `withdraw_crashes`, `keep_alive`,
    /// and `join` if the worker id is lost).
    ///
    /// The default is `None`: a task of the bus's runtime renews everything, and follows its clock. That suits an
    /// in-memory storage, and tests with their own clock.
    fn apart(&self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// The storage as `Any`, so that its own transactions and extractors can downcast the bus's storage.
    fn as_any(&self) -> &dyn Any;
}
