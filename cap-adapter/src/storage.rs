//! The storage trait and its data types.
//!
//! A storage keeps two tables of messages, the [outbox](Side::Outbox) and the [inbox](Side::Inbox). Each has a narrow
//! *state row* for every message that is unfinished or has something to record; a message without a state row has
//! succeeded. The engine makes all decisions (retry or give up, when, how long to keep), and a storage only applies
//! them. `MemoryStorage` is the reference implementation of the behavior described here.
//!
//! # Claims and fencing
//!
//! A state row has one time, `due`, from which any node may claim it; a row without it is never claimed. A claim sets
//! the owner, moves `due` to the end of the lease and raises the row's `epoch` by one. Every later call about the row
//! carries the [`Lease`] (row id and epoch) under which it was claimed or inserted, and is rejected if the row has a
//! newer epoch. So a node that was paused past its lease cannot undo the work of the node that took over.
//!
//! # Suspects
//!
//! An inbox lease that expires without a release does not identify the message that killed the process, since a node
//! leases many rows and runs few. A row that is claimed after such an expiry is a [`Suspect`]. Before the handler of
//! a suspect starts, the engine records the start ([`Storage::mark_started`]) under the lease. If that lease expires
//! too, the claim that finds it counts one crash and records it among the attempts, provided that no other suspect
//! ran on that node. A recorded start is valid only for its own lease, so a release, a retry, or a claim by a node
//! that does not support this makes it void. A live process that has lost such a lease takes the crash back
//! ([`Storage::withdraw_crashes`]).
//!
//! All times are by the storage's clock: parameters and results are durations, and no node's clock decides anything.

use std::any::Any;
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio_util::sync::CancellationToken;

use crate::error::StorageError;
pub use crate::identity::{Digest, Holder, Identity, Meeting};
use crate::message::Message;
pub use crate::shared_key::SharedKey;

/// Which of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Messages that this service publishes.
    Outbox,
    /// Messages that this service consumes.
    Inbox,
}

/// The right to change a row: its id and its epoch, the number of its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The row.
    pub id: i64,
    /// How many times the row had been claimed when this lease was given; a row inserted as leased starts at 1.
    pub epoch: i32,
}

/// The status of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// Stored, to be processed now.
    Scheduled,
    /// To be published later.
    Delayed,
    /// Failed, with attempts left.
    Retrying,
    /// Failed for good, or parked: waits for an operator.
    Failed,
    /// Finished.
    Succeeded,
}

/// The reason for a row's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Every attempt that the policy allows has failed.
    Exhausted,
    /// The handler, or for a published message the transport, reported that no further attempt can succeed.
    Permanent,
    /// The delivery has no message id or no name, or the hook that could have set them panicked.
    MissingHeaders,
    /// The body cannot be decoded as the handler's payload.
    Undecodable,
    /// No handler of the group subscribes to this topic.
    NoSubscriber,
    /// The broker accepted the message but could not route it to any queue. The row counts as succeeded.
    Unrouted,
    /// An operator or the application cancelled the delayed message.
    Cancelled,
    /// The stored row cannot be read, or the storage rejected the message as it was received.
    Corrupt,
    /// Another message with this message id was received before. The row is stored under a generated id, and its
    /// headers keep the original id, under which it is handled if an operator runs it.
    IdConflict,
    /// The message asks for a reply to a topic that `callbacks_to` does not allow.
    CallbackNotAllowed,
    /// The message names a topic that differs from its routing key.
    NameMismatch,
    /// The process died while handling the message, as many times as `CapOptions::crash_limit` allows.
    ProcessCrashed,
}

impl Reason {
    /// All reasons, for storages that keep them as text.
    pub const ALL: [Self; 12] = [
        Self::Exhausted,
        Self::Permanent,
        Self::MissingHeaders,
        Self::Undecodable,
        Self::NoSubscriber,
        Self::Unrouted,
        Self::Cancelled,
        Self::Corrupt,
        Self::IdConflict,
        Self::CallbackNotAllowed,
        Self::NameMismatch,
        Self::ProcessCrashed,
    ];

    /// The stable name, as it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Permanent => "permanent",
            Self::MissingHeaders => "missing-headers",
            Self::Undecodable => "undecodable",
            Self::NoSubscriber => "no-subscriber",
            Self::Unrouted => "unrouted",
            Self::Cancelled => "cancelled",
            Self::Corrupt => "corrupt",
            Self::IdConflict => "id-conflict",
            Self::CallbackNotAllowed => "callback-not-allowed",
            Self::NameMismatch => "name-mismatch",
            Self::ProcessCrashed => "process-crashed",
        }
    }

    /// Whether messages get this reason before any handler has run.
    #[must_use]
    pub const fn is_of_receipt(self) -> bool {
        matches!(
            self,
            Self::MissingHeaders
                | Self::Undecodable
                | Self::NoSubscriber
                | Self::Corrupt
                | Self::CallbackNotAllowed
                | Self::NameMismatch
        )
    }

    /// Whether the reason is about received input, rather than about a handler or the broker: any sender can cause as
    /// many of these as it likes.
    #[doc(hidden)]
    #[must_use]
    pub fn is_about_input(self) -> bool {
        self.is_of_receipt() || self == Self::IdConflict
    }

    /// The reason with a stable name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A message to insert into the outbox.
#[derive(Debug, Clone)]
pub struct NewOutgoing {
    /// The row's id, unique and increasing.
    pub id: i64,
    /// The message. It always has a `cap-msg-id` and a `cap-msg-name`.
    pub message: Arc<Message>,
    /// The time until it is due; `None` for at once. With a delay the row is [`Status::Delayed`].
    pub delay: Option<Duration>,
    /// Whether the inserting node leases the row at once, with epoch 1. Otherwise the row has epoch 0 and any node
    /// may claim it when it is due. Never set together with a delay.
    pub held: bool,
}

/// A message to insert into the inbox.
#[derive(Debug, Clone)]
pub struct NewIncoming {
    /// The row's id, unique and increasing.
    pub id: i64,
    /// The full name of the receiving group.
    pub group: Arc<str>,
    /// The message as received. It may lack the headers for id and name.
    pub message: Arc<Message>,
    /// What to insert it as.
    pub entry: Entry,
    /// Its identity besides message id and group.
    pub identity: Identity,
}

impl NewIncoming {
    /// Whether the inserting node leases the row, with epoch 1.
    #[doc(hidden)]
    #[must_use]
    pub fn is_leased(&self) -> bool {
        matches!(self.entry, Entry::Scheduled { held: true } | Entry::Parked { notify: true, .. })
    }
}

/// How a received message enters the inbox.
#[derive(Debug, Clone)]
pub enum Entry {
    /// For its handler; `held` as in [`NewOutgoing::held`].
    Scheduled {
        /// Whether the inserting node leases the row at once.
        held: bool,
    },
    /// Parked, with [`Status::Failed`]: it cannot be handled as it is.
    Parked {
        /// Why.
        reason: Reason,
        /// The error text.
        error: String,
        /// How long to keep it.
        keep: Duration,
        /// Whether an operator is still to be notified, as with `Failed`.
        notify: bool,
    },
}

/// The result of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The row was inserted.
    New,
    /// A row with this message id (outbox), or this message id and group (inbox), existed before, and nothing was
    /// changed. In the inbox it has the same [digest](Identity::digest), or one of the two has none; or this message
    /// was stored [apart](Identity::apart) before. Messages without an id never collide.
    Duplicate,
    /// Only in the inbox: another message with a different digest has this message id in this group, and [keeps
    /// it](Meeting::Conflict). Nothing was changed. Never returned for a message that is stored
    /// [apart](Identity::apart).
    Conflict,
}

/// The outcome of a message under a lease.
#[derive(Debug, Clone)]
pub struct RowCompletion {
    /// The lease of the attempt. If the row has another epoch by now, or no state row, nothing happens.
    pub lease: Lease,
    /// The outcome.
    pub outcome: RowOutcome,
    /// Messages to insert into the outbox in the same transaction, if and only if the lease is valid. Only for the
    /// inbox.
    pub publishes: Vec<NewOutgoing>,
}

impl RowCompletion {
    /// Logs a warning for each message that was not published with the outcome because its message id is in use. For
    /// storages, after the lease was found valid; `stored` are the results of the inserts.
    pub fn warn_of_duplicates(&self, stored: impl IntoIterator<Item = Stored>) {
        for (new, _) in self.publishes.iter().zip(stored).filter(|(_, stored)| *stored == Stored::Duplicate) {
            tracing::warn!(
                target: "cap_core::storage",
                row = self.lease.id,
                message_id = new.message.id(),
                topic = new.message.name(),
                "message published by this handler dropped: message id already in the outbox"
            );
        }
    }
}

/// The new state of a row.
#[derive(Debug, Clone)]
pub enum RowOutcome {
    /// Finished.
    Succeeded {
        /// What to keep.
        retention: Retention,
        /// [`Reason::Unrouted`] if the broker found no queue. With a reason the state row is always kept.
        reason: Option<Reason>,
    },
    /// An attempt failed and another follows. The row becomes [`Status::Retrying`] with one more attempt.
    Retry {
        /// When it is due again.
        after: Duration,
        /// Whether this node retries at once under the same lease; `after` is then ignored, and `due` becomes the end
        /// of the lease.
        hold: bool,
        /// The error.
        error: String,
    },
    /// An attempt failed, and the broker keeps a copy that it delivers again when the next one is due; see
    /// [`Storage::claim_waiting`]. Like [`Retry`](Self::Retry) without a lease, but the row becomes due without the
    /// broker's copy only `spare` later.
    RetryAtBroker {
        /// When the next attempt is due.
        after: Duration,
        /// How much later any node may claim the row without the broker's copy.
        spare: Duration,
        /// The error.
        error: String,
    },
    /// The last attempt failed, or the message cannot be processed further. One more attempt if `counted`.
    Failed {
        /// The reason.
        reason: Reason,
        /// The error.
        error: String,
        /// Whether an attempt was made that counts and is recorded.
        counted: bool,
        /// How long to keep the row.
        keep: Duration,
        /// Whether the failure callback is still to be called. The row then keeps its owner and a `due` at the end of
        /// the lease, so that another node calls it if this one dies; [`Notified`](Self::Notified) ends that.
        notify: bool,
    },
    /// The failure callback was called: the row has no owner and is not due any more.
    Notified,
    /// Released unchanged: nothing is counted, and the row has no owner.
    Release {
        /// When it is due again. Zero means since the time it was added, so that it comes before newer rows.
        after: Duration,
    },
}

/// The former name of [`RowCompletion`].
#[deprecated(note = "renamed to RowCompletion")]
pub type Settlement = RowCompletion;

/// The former name of [`RowOutcome`].
#[deprecated(note = "renamed to RowOutcome")]
pub type Verdict = RowOutcome;

/// How long a message that succeeded is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// No state row is kept. The message expires by its age; see [`Expiry::succeeded`].
    Forget,
    /// The state row is kept as [`Status::Succeeded`] and expires after this time from now.
    Keep(Duration),
    /// Message, state and attempts are deleted at once.
    Delete,
}

/// A batch of inserts and outcomes, written in one call and one transaction.
///
/// The order within each list is kept where it is visible (ids, recorded attempts).
#[derive(Debug, Default)]
pub struct WriteBatch {
    /// New rows of the outbox.
    pub outgoing: Vec<NewOutgoing>,
    /// New rows of the inbox.
    pub incoming: Vec<NewIncoming>,
    /// Outcomes of outbox rows.
    pub completed_outgoing: Vec<RowCompletion>,
    /// Outcomes of inbox rows.
    pub completed_incoming: Vec<RowCompletion>,
}

impl WriteBatch {
    /// The number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outgoing.len()
            + self.incoming.len()
            + self.completed_outgoing.len()
            + self.completed_incoming.len()
    }

    /// Whether there are no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The results of a [`WriteBatch`], item by item in the same order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WriteReport {
    /// For each of [`WriteBatch::outgoing`].
    pub outgoing: Vec<Stored>,
    /// For each of [`WriteBatch::incoming`].
    pub incoming: Vec<Stored>,
    /// For each of [`WriteBatch::completed_outgoing`]: whether the lease was valid and the outcome was applied.
    pub completed_outgoing: Vec<bool>,
    /// For each of [`WriteBatch::completed_incoming`].
    pub completed_incoming: Vec<bool>,
}

/// The node that calls the storage: rows are leased in its name, for this long.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The node's name, unique among those that share the storage.
    pub node: Arc<str>,
    /// The version tag of the bus: rows are claimed only by nodes of their own version.
    pub version: Arc<str>,
    /// How long a lease lasts without a renewal.
    pub lease: Duration,
}

/// A request to claim rows. The engine makes it; tests of an adapter use [`new`](Self::new).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClaimRequest {
    /// Which table.
    pub side: Side,
    /// For the inbox: only rows of these groups. Ignored for the outbox.
    pub groups: Vec<Arc<str>>,
    /// The maximum number of rows.
    pub limit: usize,
    /// The maximum number of bytes of all bodies together. The first row is claimed even if its body is larger. A storage may
    /// claim less, but at least one row. By default there is no limit.
    pub bytes: usize,
}

impl ClaimRequest {
    /// A request for at most `limit` rows of any size.
    #[must_use]
    pub fn new(side: Side, groups: Vec<Arc<str>>, limit: usize) -> Self {
        Self { side, groups, limit, bytes: usize::MAX }
    }

    /// Limits the bytes of all bodies together.
    #[must_use]
    pub fn within(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }
}

/// Claimed rows, the longest due first.
#[derive(Debug, Default)]
pub struct Claims {
    /// The rows, each under a new lease.
    pub rows: Vec<Claimed>,
    /// How long until the next row of these groups that was not claimed becomes due; zero if some are due but were
    /// left out by the limit or their size. `None` if there is none. Leases of other nodes count, since they may
    /// expire.
    pub next_due: Option<Duration>,
}

/// A claimed row.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The new lease.
    pub lease: Lease,
    /// The message as it was stored.
    pub message: Arc<Message>,
    /// The receiving group; empty for the outbox.
    pub group: Arc<str>,
    /// The number of failed attempts over the whole life of the message.
    pub attempts: u32,
    /// Of those, the attempts that failed before an operator last re-ran it; retry policies count from here.
    pub attempts_before_rerun: u32,
    /// How long ago the message was stored.
    pub age: Duration,
    /// Set if the row has failed for good and only its failure callback is due, with this reason and error. It must
    /// not be processed.
    pub notice: Option<(Reason, String)>,
    /// How many times the process died while handling this message, since an operator last re-ran it. Separate from
    /// [`attempts`](Self::attempts), which a policy counts.
    pub crashes: u32,
    /// Set if the previous lease expired without a release. Only in the inbox, and never together with a notice.
    pub suspect: Option<Suspect>,
}

/// A row whose last lease expired without a release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspect {
    /// Whether a handler's start was recorded for it before, under any lease. It then runs while no other suspect of
    /// the node does, so that a crash can be attributed to it.
    pub started_before: bool,
    /// The node that died, if this claim counted a crash.
    pub crashed: Option<Arc<str>>,
}

/// Records that the handler of a suspect is about to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartMark {
    /// The lease of the attempt.
    pub lease: Lease,
    /// Whether no other suspect runs on this node meanwhile. Only then does an expired lease count a crash.
    pub alone: bool,
}

/// The error text of a recorded crash, for storages: `process died while handling, node <name>`.
#[must_use]
pub fn crash_text(node: &str) -> String {
    format!("process died while handling, node {node}")
}

/// What the collector deletes.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    /// Messages without a state row that are older than this.
    pub succeeded: Duration,
    /// The maximum number of messages of each table in one call.
    pub limit: usize,
}

/// A node's request for a worker id.
#[derive(Debug, Clone)]
pub struct NodeRequest {
    /// The node's name.
    pub node: Arc<str>,
    /// The configured worker id; `None` to get a free one.
    pub worker: Option<u16>,
    /// How long the worker id belongs to the node without being renewed.
    pub lease: Duration,
    /// How long this node keeps messages that succeeded, as in its [`Expiry::succeeded`]. A storage that shows when a
    /// message expires shows the shortest of all nodes.
    pub succeeded_expire_after: Duration,
}

/// The number by which a storage identifies a transaction of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub i64);

/// The result of [`Storage::look_for`].
#[derive(Debug, Clone, Default)]
pub struct LookedFor {
    /// The transactions that have ended, committed or not.
    pub ended: HashSet<TransactionId>,
    /// The rows that exist.
    pub stored: HashSet<i64>,
}

/// A signal from the storage to the bus that there may be work, which makes polling unnecessary.
#[derive(Debug, Clone, Default)]
pub struct Wake {
    outbox: Arc<tokio::sync::Notify>,
    inbox: Arc<tokio::sync::Notify>,
}

impl Wake {
    /// Signals that rows may have become due on one side. Cheap, never blocks, and may be called more often than
    /// needed.
    pub fn wake(&self, side: Side) {
        match side {
            Side::Outbox => self.outbox.notify_one(),
            Side::Inbox => self.inbox.notify_one(),
        }
    }

    /// Waits for the signal, or returns at once if it was given since the last wait.
    pub async fn woken(&self, side: Side) {
        match side {
            Side::Outbox => self.outbox.notified().await,
            Side::Inbox => self.inbox.notified().await,
        }
    }
}

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
    /// read is set to [`Status::Failed`] with [`Reason::Corrupt`] and left out.
    fn claim(
        &self,
        owner: &Owner,
        request: &ClaimRequest,
    ) -> impl Future<Output = Result<Claims, StorageError>> + Send;

    /// Claims inbox rows before they are due, whose retry copy the broker has delivered. A row is claimed if the
    /// attempt under this lease was its last change: it is [`Status::Retrying`], has no owner, and its epoch is
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
    /// is recorded for the others. One statement for all. It is only called for [suspects](Suspect).
    ///
    /// If a lease with a recorded start that is `alone` expires without a release, the claim that finds the row
    /// counts one crash, sets the last error, and records the crash among the attempts, with the number of the
    /// running attempt, the name of the dead node, and [this text](crash_text). It does not count as an attempt. A
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
