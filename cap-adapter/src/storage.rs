//! What the bus asks of a store, and the plain data that goes between them.
//!
//! A store keeps two tables of messages, the [outbox](Side::Outbox) and the [inbox](Side::Inbox), each with a
//! narrow *state row* for every message that is not simply done. No state row means: succeeded. All decisions
//! (retry or give up, when, for how long to keep) are the core's; a store only applies them. The model of the
//! behavior described here is `MemoryStorage`.
//!
//! # Claims and fencing
//!
//! A state row has one time, `due`: from then on any node may claim it; without it nobody does. A claim sets the
//! owner, moves `due` to the end of the lease and raises the row's `epoch` by one. Every later word about the row
//! carries the [`Lease`] (row id and epoch) under which it was claimed or inserted, and is refused if the row has
//! moved on. A node that was paused past its lease therefore cannot undo what another has taken over.
//!
//! # Suspects
//!
//! A lease of the inbox that expires without a release says little: a node leases many rows and runs few, so that of a
//! process that died hardly any row is to blame. A row that is claimed after that is a [`Suspect`]. Only for suspects the
//! core notes that a handler starts ([`Storage::mark_started`]), under the lease, and before it does. If that lease
//! expires too, the claim that finds it counts one crash and records it among the attempts, provided that the mark says
//! that no other suspect ran on that node. A mark counts for the lease under which it was set alone, so that a release, a
//! retry, or a claim by a node that knows nothing of marks, makes it void. A process that lives and has lost a marked
//! lease takes the crash back ([`Storage::withdraw_crashes`]).
//!
//! Time is the store's own clock throughout: durations go in and come out, and no node's clock decides anything.

use std::any::Any;
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::StorageError;
pub use crate::identity::{Digest, Holder, Identity, Meeting};
use crate::message::Message;
pub use crate::shared_key::SharedKey;

/// Which of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Messages that this service publishes.
    Outbox,
    /// Messages that this service consumes.
    Inbox,
}

/// The right to speak about a row: its id, and the count of its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The row.
    pub id: i64,
    /// How many times the row had been claimed when this lease was given; a row inserted as held starts at 1.
    pub epoch: i32,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Stored and to be worked on now.
    Scheduled,
    /// To be published later.
    Delayed,
    /// Failed, with attempts left.
    Retrying,
    /// Failed for good, or parked: it waits for an operator.
    Failed,
    /// Done.
    Succeeded,
}

/// Why a row is as it is, where there is something to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Every attempt that the policy allows has failed.
    Exhausted,
    /// The handler, or for a sent message the transport, said that no further attempt can succeed.
    Permanent,
    /// The delivery has no message id or no name, or the hook panicked that could
    /// have given it some.
    MissingHeaders,
    /// The body cannot be read as the handler's payload.
    Undecodable,
    /// No handler of the group takes this topic.
    NoSubscriber,
    /// The broker took the message but no queue wanted it. The row counts as succeeded.
    Unrouted,
    /// An operator or the application called the delayed message off.
    Cancelled,
    /// The stored row cannot be read, or the store has refused the message as it was received.
    Corrupt,
    /// Another message with this message id was received before. The row is stored under an id of its own, and its
    /// headers keep the id that it came with; when an operator runs it, it is handled as that.
    IdConflict,
    /// The message asks for a reply to a topic that `callbacks_to` does not allow.
    CallbackNotAllowed,
    /// The message names another topic than the routing key that it was sent with.
    NameMismatch,
    /// The process has died while the message was being handled, as often as
    /// `CapOptions::crash_limit` allows.
    ProcessCrashed,
}

impl Reason {
    /// Every reason, for stores that keep it as text.
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

    /// The stable name, as stores keep it and people read it.
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

    /// Whether it is given to messages before any handler has run.
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

    /// Whether it is about what was received, rather than about a handler or the broker: whoever may write to a topic
    /// can cause as many of these as they like.
    #[doc(hidden)]
    #[must_use]
    pub fn is_about_input(self) -> bool {
        self.is_of_receipt() || self == Self::IdConflict
    }

    /// The reason of a stable name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// A message to be put in the outbox.
#[derive(Debug, Clone)]
pub struct NewOutgoing {
    /// The row's id, unique and rising.
    pub id: i64,
    /// The message. It always has a `cap-msg-id` and a `cap-msg-name`.
    pub message: Arc<Message>,
    /// How long from now it is due; `None` for at once. With a delay the row is [`Status::Delayed`].
    pub delay: Option<Duration>,
    /// Whether the inserting node works on it at once, under a lease with epoch 1. Otherwise the row has epoch 0
    /// and anyone may claim it when it is due. Never set together with a delay.
    pub held: bool,
}

/// A message to be put in the inbox.
#[derive(Debug, Clone)]
pub struct NewIncoming {
    /// The row's id, unique and rising.
    pub id: i64,
    /// The full name of the receiving group.
    pub group: Arc<str>,
    /// The message as received. It may lack the headers for id and name.
    pub message: Arc<Message>,
    /// What to insert it as.
    pub entry: Entry,
    /// What it is, besides its message id and its group.
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
        /// Whether the inserting node works on it at once.
        held: bool,
    },
    /// As [`Status::Failed`] straight away: nobody can handle it as it is.
    Parked {
        /// Why.
        reason: Reason,
        /// Why, in words.
        error: String,
        /// How long to keep it.
        keep: Duration,
        /// Whether an operator is still to be notified, as with `Failed`.
        notify: bool,
    },
}

/// What became of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The row is there now.
    New,
    /// A row with this message id (outbox), or this message id and group (inbox), was there before, and nothing
    /// was changed. In the inbox it has the same [digest](Identity::digest), or one of the two has none; or the very
    /// message was stored [apart](Identity::apart) before. Messages without an id never collide.
    Duplicate,
    /// Only in the inbox: another message has this message id in this group, as their digests differ, and
    /// [does not give way](Meeting::Conflict). Nothing was changed. Never said of one that is stored
    /// [apart](Identity::apart).
    Conflict,
}

/// What has become of a message under a lease.
#[derive(Debug, Clone)]
pub struct RowCompletion {
    /// The lease it was worked on under. If the row has another epoch by now, or no state row, nothing happens.
    pub lease: Lease,
    /// What has become of it.
    pub outcome: RowOutcome,
    /// Messages to be put in the outbox in the same transaction, if and only if the lease held. Only for the inbox.
    pub publishes: Vec<NewOutgoing>,
}

impl RowCompletion {
    /// Warns of what was to be published with it and is not, as its message id is taken. For stores, once the lease has
    /// held; `stored` is what became of each message.
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

/// What a state row is to become.
#[derive(Debug, Clone)]
pub enum RowOutcome {
    /// Done.
    Succeeded {
        /// What to keep.
        retention: Retention,
        /// [`Reason::Unrouted`] if the broker found no queue. With a reason the state row is always kept.
        reason: Option<Reason>,
    },
    /// An attempt failed and another follows. The row becomes [`Status::Retrying`] with one attempt more.
    Retry {
        /// When it is due again.
        after: Duration,
        /// Whether this node goes on with it at once under the same lease; `after` is then not looked at, and
        /// `due` becomes the end of the lease.
        hold: bool,
        /// What went wrong.
        error: String,
    },
    /// An attempt failed, and the broker keeps a copy that it delivers again when the next one is due; see
    /// [`Storage::claim_waiting`]. As [`Retry`](Self::Retry) that is not held, but the row becomes due by itself only
    /// `spare` later, should the broker's copy not come.
    RetryAtBroker {
        /// When the next attempt is due.
        after: Duration,
        /// How much later any node may claim the row without the broker.
        spare: Duration,
        /// What went wrong.
        error: String,
    },
    /// The last attempt failed, or the message can be worked on no further. One attempt more if `counted`.
    Failed {
        /// Why it is final.
        reason: Reason,
        /// What went wrong.
        error: String,
        /// Whether an attempt was made that counts, and is to be recorded.
        counted: bool,
        /// How long to keep the row.
        keep: Duration,
        /// Whether an operator must still be told. The row then keeps its owner and a `due` at the lease's end, so
        /// that another node tells them should this one die; [`Notified`](Self::Notified) ends that.
        notify: bool,
    },
    /// The operator was notified: the row has no owner and is never due by itself.
    Notified,
    /// Given back as it was, nothing counted, without an owner.
    Release {
        /// When it is due again. Zero means: since the time it was added, so that it comes before younger ones.
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
    /// No state row stays. The message expires by its age; see [`Expiry::succeeded`].
    Forget,
    /// The state row stays as [`Status::Succeeded`] and expires after this time from now.
    Keep(Duration),
    /// Message, state and attempts are deleted at once.
    Delete,
}

/// Everything that has gathered to be written, in one call and one transaction.
///
/// The order within each list is kept where it shows (ids, recorded attempts).
#[derive(Debug, Default)]
pub struct WriteBatch {
    /// New rows of the outbox.
    pub outgoing: Vec<NewOutgoing>,
    /// New rows of the inbox.
    pub incoming: Vec<NewIncoming>,
    /// What became of outbox rows.
    pub completed_outgoing: Vec<RowCompletion>,
    /// What became of inbox rows.
    pub completed_incoming: Vec<RowCompletion>,
}

impl WriteBatch {
    /// How many items it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outgoing.len()
            + self.incoming.len()
            + self.completed_outgoing.len()
            + self.completed_incoming.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What became of a [`WriteBatch`], item by item in the same order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WriteReport {
    /// For each of [`WriteBatch::outgoing`].
    pub outgoing: Vec<Stored>,
    /// For each of [`WriteBatch::incoming`].
    pub incoming: Vec<Stored>,
    /// For each of [`WriteBatch::completed_outgoing`]: whether the lease held and the outcome was applied.
    pub completed_outgoing: Vec<bool>,
    /// For each of [`WriteBatch::completed_incoming`].
    pub completed_incoming: Vec<bool>,
}

/// Who speaks to the store: rows held are held in this name, for this long.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The node's name, unique among those that share the store.
    pub node: Arc<str>,
    /// The version tag of the bus: rows are claimed only by nodes of their own version.
    pub version: Arc<str>,
    /// How long a lease lasts without a renewal.
    pub lease: Duration,
}

/// A wish for work.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// Which table.
    pub side: Side,
    /// For the inbox: only rows of these groups. Not looked at for the outbox.
    pub groups: Vec<Arc<str>>,
    /// At most so many rows; fewer, but at least one, when their bodies together are too large for one call.
    pub limit: usize,
}

/// Work that was claimed, the longest due first.
#[derive(Debug, Default)]
pub struct Claims {
    /// The rows, each under a new lease.
    pub rows: Vec<Claimed>,
    /// How long until the next row of these groups that was not claimed becomes due; zero if some are due but the
    /// limit, or their size, left them out. `None` if there is none. Leases of other nodes count, as they may run out.
    pub next_due: Option<Duration>,
}

/// One row of claimed work.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The lease under which it is held now.
    pub lease: Lease,
    /// The message as it was stored.
    pub message: Arc<Message>,
    /// The receiving group; empty for the outbox.
    pub group: Arc<str>,
    /// Attempts that have failed so far, over the whole life of the message.
    pub attempts: u32,
    /// Of those, the ones that failed before an operator last re-ran it; retry policies count from here.
    pub attempts_before_rerun: u32,
    /// How long ago the message was stored.
    pub age: Duration,
    /// The row has failed for good and only the notice to an operator is due, with this reason and error. It is not
    /// to be worked on.
    pub notice: Option<(Reason, String)>,
    /// How often the process has died while this message was being handled, since an operator last re-ran it. Apart from
    /// [`attempts`](Self::attempts), which a policy counts.
    pub crashes: u32,
    /// The lease before this one expired without a release. Only in the inbox, and never together with a notice.
    pub suspect: Option<Suspect>,
}

/// What is known of a row whose last lease expired without a release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspect {
    /// A handler's start was noted for it once before, under whichever lease. It then runs while no other suspect of the
    /// node does, so that there is no doubt about who is to blame.
    pub started_before: bool,
    /// The node that died, if this claim has counted a crash.
    pub crashed: Option<Arc<str>>,
}

/// That the handler of a suspect is about to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartMark {
    /// The lease that it runs under.
    pub lease: Lease,
    /// Whether no other suspect runs on this node meanwhile. Should the lease expire, a crash is counted only then.
    pub alone: bool,
}

/// The error of a recorded crash, for stores: `process died while handling, node <name>`.
#[must_use]
pub fn crash_text(node: &str) -> String {
    format!("process died while handling, node {node}")
}

/// What the collector deletes.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    /// Messages without a state row that are older than this.
    pub succeeded: Duration,
    /// At most so many messages of each table in one call.
    pub limit: usize,
}

/// How a node makes itself known.
#[derive(Debug, Clone)]
pub struct NodeRequest {
    /// The node's name.
    pub node: Arc<str>,
    /// The worker id it was configured with; `None` to draw a free one.
    pub worker: Option<u16>,
    /// How long the number stays its own without being renewed.
    pub lease: Duration,
    /// How long this node keeps messages that succeeded, as its collector says in [`Expiry::succeeded`]. A storage that
    /// shows when a message expires shows the shortest of all nodes.
    pub succeeded_expire_after: Duration,
}

/// The number by which a storage knows a transaction of the application's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub i64);

/// What [`Storage::look_for`] has seen.
#[derive(Debug, Clone, Default)]
pub struct LookedFor {
    /// The transactions that have ended, committed or not.
    pub ended: HashSet<TransactionId>,
    /// The rows that are there.
    pub stored: HashSet<i64>,
}

/// By which a store tells the bus that there may be work, so that nobody polls.
#[derive(Debug, Clone, Default)]
pub struct Wake {
    outbox: Arc<tokio::sync::Notify>,
    inbox: Arc<tokio::sync::Notify>,
}

impl Wake {
    /// Says that rows may have become due on one side. Cheap, never blocks, and may be said too often.
    pub fn wake(&self, side: Side) {
        match side {
            Side::Outbox => self.outbox.notify_one(),
            Side::Inbox => self.inbox.notify_one(),
        }
    }

    /// Waits until that is said, or returns at once if it was said since the last wait.
    pub async fn woken(&self, side: Side) {
        match side {
            Side::Outbox => self.outbox.notified().await,
            Side::Inbox => self.inbox.notified().await,
        }
    }
}

/// A store that a bus can live on.
///
/// Methods take slices or batches, so that one round trip serves many messages. Each call is atomic: it happens
/// whole or, on an error, not at all (after a lost connection: one of the two, and the caller does not know which;
/// all calls are safe to repeat). Several calls run at the same time, from several nodes.
///
/// Every method may be dropped half-way; the store must then roll back or finish, and stay usable.
pub trait Storage: Send + Sync + 'static {
    /// The store's name for people: `PostgreSQL`.
    fn name(&self) -> &'static str;

    /// Checks the settings without touching the network. Called once, first.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind) with what is wrong.
    fn check(&self) -> Result<(), StorageError>;

    /// Creates or migrates the schema. Called until it succeeds, before anything else; safe to call from many
    /// nodes at once and on a schema that is there already.
    fn initialize(&self) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Checks that the storage can hold these names: of the groups of a bus, the topics that they subscribe to, its
    /// version and its node. Called after [`initialize`](Self::initialize), before anything is stored. By default it
    /// can hold any.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind) with the name that it cannot hold, and why.
    fn check_names(&self, names: &[&str]) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = names;
        std::future::ready(Ok(()))
    }

    /// Claims a worker id from 0 to 1023 for this node: the requested one, or one that no live node has.
    /// A requested number that another live node holds is an error of the kind `Unusable`.
    fn join(&self, request: &NodeRequest) -> impl Future<Output = Result<u16, StorageError>> + Send;

    /// Renews the claim on the worker id; `false` if it was lost, and the node must join again.
    fn keep_alive(
        &self,
        request: &NodeRequest,
        worker: u16,
    ) -> impl Future<Output = Result<bool, StorageError>> + Send;

    /// Gives the worker id back.
    fn leave(&self, node: &str, worker: u16) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Gives back the key that all nodes of this storage share. The first call ever stores `fresh`; every later one, of any
    /// node, gives back what was stored then. Nodes prove with it to each other that what comes back from a broker is
    /// theirs: who can read it can forge that.
    ///
    /// A storage that has no place for a key leaves it out. It then keeps all retries itself, and the broker keeps none.
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

    /// Claims rows that are due, the longest due first, skipping those that others are claiming. A row that
    /// cannot be read is set to [`Status::Failed`] with [`Reason::Corrupt`] and left out.
    fn claim(
        &self,
        owner: &Owner,
        request: &ClaimRequest,
    ) -> impl Future<Output = Result<Claims, StorageError>> + Send;

    /// Claims rows of the inbox before they are due: those whose retry a broker has kept and now delivered. A row is
    /// claimed if it is still as the attempt under this lease has left it: [`Status::Retrying`], nobody's, and its
    /// epoch unchanged. Gives back, in the same order, the claim or `None` (it was claimed, re-run, deleted or
    /// parked meanwhile, and is none of the broker's business any more). A row that cannot be read is dealt with as
    /// in [`claim`](Self::claim).
    ///
    /// A store that does not have this leaves it out: the rows are claimed when they are due by themselves.
    fn claim_waiting(
        &self,
        owner: &Owner,
        leases: &[Lease],
    ) -> impl Future<Output = Result<Vec<Option<Claimed>>, StorageError>> + Send {
        let _ = owner;
        let none = leases.iter().map(|_| None).collect();
        async move { Ok(none) }
    }

    /// Notes under their leases that handlers of suspects of the inbox start, or that one that is running does so no longer
    /// alone; the last mark under a lease counts. Gives back, in the same order, which leases are still held; of one that
    /// is not nothing is noted. One statement for all; it is never called for a message that is no [`Suspect`].
    ///
    /// When a lease with a mark that says `alone` expires without a release, the claim that finds the row counts one
    /// crash, sets the last error, and records it with the attempts, under the number of the attempt that was running and
    /// the name of the node that died, in [this](crash_text) text. It counts as no attempt. A re-run sets the crashes back
    /// to zero.
    ///
    /// A store that does not have this leaves it out, and claims no suspects.
    fn mark_started(
        &self,
        owner: &Owner,
        marks: &[StartMark],
    ) -> impl Future<Output = Result<Vec<bool>, StorageError>> + Send {
        let _ = owner;
        let held = vec![true; marks.len()];
        async move { Ok(held) }
    }

    /// Takes back the crashes that were counted for these leases, with their records: the process that had them lives.
    /// Nothing happens for a lease for which none was counted.
    fn withdraw_crashes(&self, leases: &[Lease]) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = leases;
        async { Ok(()) }
    }

    /// Renews leases: each lasts the full lease time from now again. Gives back, in the same order, which are
    /// still held.
    fn renew(
        &self,
        owner: &Owner,
        side: Side,
        leases: &[Lease],
    ) -> impl Future<Output = Result<Vec<bool>, StorageError>> + Send;

    /// Says which of these transactions have ended, committed or not, and which of these rows of the outbox are there, as
    /// they were inserted by this node in one of them: leased by it, and not claimed since. Both as of one moment, so that
    /// a row of an ended transaction that is not there will never be. Waits for no transaction.
    ///
    /// Only for a storage whose [`Within`](crate::Within) says by which number it knows a transaction; another one leaves
    /// it out.
    fn look_for(
        &self,
        transactions: &[TransactionId],
        rows: &[i64],
    ) -> impl Future<Output = Result<LookedFor, StorageError>> + Send {
        let _ = rows;
        let ended = transactions.iter().copied().collect();
        async move { Ok(LookedFor { ended, stored: HashSet::new() }) }
    }

    /// Has the [listeners](Self::listen) of other nodes look for work on a side: for what was stored within transactions of
    /// the application's, which announce nothing themselves. A store without listeners leaves it out.
    fn announce(&self, side: Side) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = side;
        async { Ok(()) }
    }

    /// Deletes messages whose time is over, with their state and attempts, the oldest first: those without a
    /// state row by age, those with one by its own expiry. Gives back how many of the outbox and the inbox; the
    /// caller goes on while a number equals the limit.
    fn delete_expired(
        &self,
        expiry: &Expiry,
    ) -> impl Future<Output = Result<(u64, u64), StorageError>> + Send;

    /// Listens for work until cancelled, and calls [`Wake::wake`] when rows may have become due through another
    /// process or a plain transaction. A store that has no such signal waits for the token. Losing the connection
    /// is its own affair: it reconnects, and wakes both sides once, as it may have missed something.
    fn listen(&self, wake: Wake, cancelled: CancellationToken) -> impl Future<Output = ()> + Send {
        let _ = wake;
        async move { cancelled.cancelled().await }
    }

    /// The same store once more, on connections of its own that are opened where it is used: the bus renews its leases and its
    /// worker id through it, on a thread and a runtime of their own, and so keeps them while a handler blocks the
    /// runtime. Nothing is connected to before its first call, all of its calls come from that runtime, and they may wait
    /// for nothing that belongs to another one. It renews (`renew`, `withdraw_crashes`, `keep_alive`, and `join` once the
    /// number is lost), and does nothing else.
    ///
    /// By default there is none: everything is renewed by a task of the bus's runtime, and follows its clock. Right for a
    /// store in memory, and for tests with a clock of their own.
    fn apart(&self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// The store as itself, so that its own transactions and extractors find it again behind the bus.
    fn as_any(&self) -> &dyn Any;
}
