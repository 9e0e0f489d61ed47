//! The in-memory storage: a lock and a clock around two tables.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::task::coop::consume_budget;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::audit::Audit;
use super::row::Moment;
use super::table::Table;
use super::workers::{NoNumber, Workers};
use cap_adapter::error::{StorageError, StorageErrorKind};
use cap_adapter::message::MAX_WORKER;
use cap_adapter::storage::{
    ClaimRequest, Claimed, Claims, Entry, Expiry, Lease, NewOutgoing, NodeRequest, Owner, RowCompletion,
    RowOutcome, SharedKey, Side, StartMark, Storage, Wake, WriteBatch, WriteReport,
};

const NAME: &str = "memory";

/// A storage in memory. Its messages are lost when the last clone is dropped.
///
/// Clones share their contents: buses with clones of one storage are nodes of one service. Its clock is tokio's, so
/// that a test with paused time controls when leases expire and delays end; the displayed times follow it. Memory
/// grows with the number of kept messages, which the options `succeeded_expire_after` and `failed_expire_after`
/// limit.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use cap_core::memory::MemoryStorage;
/// use cap_core::message::Message;
/// use cap_core::storage::{ClaimRequest, NewOutgoing, Owner, Side, Storage, WriteBatch};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cap_core::error::StorageError> {
/// let storage = MemoryStorage::new();
/// let node = Owner { node: "a".into(), version: "v1".into(), lease: Duration::from_secs(30) };
///
/// let headers = [("cap-msg-id", "1"), ("cap-msg-name", "order.created")].into_iter().collect();
/// let message = Arc::new(Message::new(headers, &b"{}"[..]));
/// let outgoing = vec![NewOutgoing { id: 1, message, delay: None, held: false }];
/// storage.write(&node, &WriteBatch { outgoing, ..WriteBatch::default() }).await?;
///
/// // Another node with the same storage claims the message.
/// let other = storage.clone();
/// let node = Owner { node: "b".into(), ..node };
/// let request = ClaimRequest::new(Side::Outbox, Vec::new(), 10);
/// let claims = other.claim(&node, &request).await?;
/// assert_eq!(claims.rows[0].message.name(), Some("order.created"));
/// assert!(storage.claim(&node, &request).await?.rows.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The time of creation, by both clocks.
    start: Instant,
    start_for_people: SystemTime,
    store: Mutex<Store>,
    listeners: Mutex<Listeners>,
}

/// Both tables and the nodes, behind one lock, so that a call on both sides is one transaction.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) outbox: Table,
    pub(super) inbox: Table,
    pub(super) audit: Audit,
    workers: Workers,
    shared_key: Option<SharedKey>,
}

#[derive(Debug, Default)]
struct Listeners {
    next: u64,
    wakes: BTreeMap<u64, Wake>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            start_for_people: SystemTime::now(),
            store: Mutex::default(),
            listeners: Mutex::default(),
        }
    }
}

impl Store {
    pub(super) fn table(&mut self, side: Side) -> &mut Table {
        match side {
            Side::Outbox => &mut self.outbox,
            Side::Inbox => &mut self.inbox,
        }
    }
}

impl MemoryStorage {
    /// Creates an empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Locks the tables and reads the clock. A panic under the lock cannot do more harm than losing the whole storage
    /// would, so poisoning is ignored.
    pub(super) fn lock(&self) -> (MutexGuard<'_, Store>, Moment) {
        let store = self.shared.store.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that times increase in the order of the calls.
        let now = Instant::now().saturating_duration_since(self.shared.start);
        (store, now)
    }

    /// A point in time as calendar time; `None` if it cannot be represented.
    pub(super) fn for_people(&self, moment: Moment) -> Option<SystemTime> {
        self.shared.start_for_people.checked_add(moment)
    }

    /// Notifies every bus on this storage that rows may have become due.
    pub(super) fn wake(&self, side: Side) {
        for wake in self.listeners().wakes.values() {
            wake.wake(side);
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryStorage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn initialize(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn join(&self, request: &NodeRequest) -> Result<u16, StorageError> {
        let (mut store, now) = self.lock();
        store.workers.join(now, request).map_err(|reason| no_number(request, &reason))
    }

    async fn keep_alive(&self, request: &NodeRequest, worker: u16) -> Result<bool, StorageError> {
        let (mut store, now) = self.lock();
        Ok(store.workers.keep_alive(now, request, worker))
    }

    async fn leave(&self, node: &str, worker: u16) -> Result<(), StorageError> {
        let (mut store, _) = self.lock();
        store.workers.leave(node, worker);
        Ok(())
    }

    async fn shared_key(&self, fresh: &SharedKey) -> Result<Option<SharedKey>, StorageError> {
        let (mut store, _) = self.lock();
        Ok(Some(store.shared_key.get_or_insert_with(|| fresh.clone()).clone()))
    }

    async fn write(&self, owner: &Owner, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
        consume_budget().await;
        let report = {
            let (mut store, now) = self.lock();
            refuse_taken_ids(&store, batch)?;
            store.write(now, owner, batch)
        };
        for side in [Side::Outbox, Side::Inbox] {
            if leaves_work(batch, side) {
                self.wake(side);
            }
        }
        Ok(report)
    }

    async fn claim(&self, owner: &Owner, request: &ClaimRequest) -> Result<Claims, StorageError> {
        consume_budget().await;
        let (mut store, now) = self.lock();
        Ok(store.table(request.side).claim(now, owner, request))
    }

    async fn claim_waiting(
        &self,
        owner: &Owner,
        leases: &[Lease],
    ) -> Result<Vec<Option<Claimed>>, StorageError> {
        consume_budget().await;
        let (mut store, now) = self.lock();
        Ok(leases.iter().map(|lease| store.inbox.claim_waiting(now, owner, *lease)).collect())
    }

    async fn mark_started(&self, _owner: &Owner, marks: &[StartMark]) -> Result<Vec<bool>, StorageError> {
        let (mut store, _) = self.lock();
        Ok(marks.iter().map(|mark| store.inbox.mark_started(*mark)).collect())
    }

    async fn withdraw_crashes(&self, leases: &[Lease]) -> Result<(), StorageError> {
        let (mut store, _) = self.lock();
        for lease in leases {
            store.inbox.withdraw_crash(*lease);
        }
        Ok(())
    }

    async fn renew(&self, owner: &Owner, side: Side, leases: &[Lease]) -> Result<Vec<bool>, StorageError> {
        let (mut store, now) = self.lock();
        let table = store.table(side);
        Ok(leases.iter().map(|lease| table.renew(now, owner, *lease)).collect())
    }

    async fn delete_expired(&self, expiry: &Expiry) -> Result<(u64, u64), StorageError> {
        consume_budget().await;
        let (mut store, now) = self.lock();
        Ok((store.outbox.delete_expired(now, expiry), store.inbox.delete_expired(now, expiry)))
    }

    async fn listen(&self, wake: Wake, cancelled: CancellationToken) {
        let _listening = Listening::new(self, wake);
        cancelled.cancelled().await;
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Store {
    fn write(&mut self, now: Moment, owner: &Owner, batch: &WriteBatch) -> WriteReport {
        let Self { outbox, inbox, .. } = self;
        let mut insert = |new: &NewOutgoing| outbox.insert_outgoing(now, owner, new);
        let outgoing = batch.outgoing.iter().map(&mut insert).collect();
        let incoming = batch.incoming.iter().map(|new| inbox.insert_incoming(now, owner, new)).collect();
        let mut complete_in_inbox = |row_completion: &RowCompletion| {
            let held = inbox.complete(now, owner, row_completion.lease, &row_completion.outcome);
            if held {
                let stored: Vec<_> = row_completion.publishes.iter().map(&mut insert).collect();
                row_completion.warn_of_duplicates(stored);
            }
            held
        };
        let completed_incoming = batch.completed_incoming.iter().map(&mut complete_in_inbox).collect();
        let complete_in_outbox = |row_completion: &RowCompletion| {
            outbox.complete(now, owner, row_completion.lease, &row_completion.outcome)
        };
        let completed_outgoing = batch.completed_outgoing.iter().map(complete_in_outbox).collect();
        WriteReport { outgoing, incoming, completed_outgoing, completed_incoming }
    }
}

/// Two messages under one row id would mean that one of them is silently lost.
fn refuse_taken_ids(store: &Store, batch: &WriteBatch) -> Result<(), StorageError> {
    let published = batch.completed_incoming.iter().flat_map(|row_completion| &row_completion.publishes);
    let outgoing = batch.outgoing.iter().chain(published).map(|new| (new.id, "", &new.message));
    let incoming = batch.incoming.iter().map(|new| (new.id, &*new.group, &new.message));
    let clash = store.outbox.first_clash(outgoing).or_else(|| store.inbox.first_clash(incoming));
    match clash {
        None => Ok(()),
        Some(id) => Err(StorageError::new(
            StorageErrorKind::Refused,
            NAME,
            format!("row {id} holds another message; do two nodes have the same worker id?"),
        )),
    }
}

/// Whether a batch leaves rows without an owner on this side, so that other nodes should be woken.
fn leaves_work(batch: &WriteBatch, side: Side) -> bool {
    let inserted = match side {
        Side::Outbox => batch.outgoing.iter().any(|new| !new.held),
        Side::Inbox => batch.incoming.iter().any(|new| matches!(new.entry, Entry::Scheduled { held: false })),
    };
    let completed = match side {
        Side::Outbox => &batch.completed_outgoing,
        Side::Inbox => &batch.completed_incoming,
    };
    let given_back = completed.iter().any(|row_completion| {
        matches!(row_completion.outcome, RowOutcome::Release { .. } | RowOutcome::Retry { hold: false, .. })
    });
    let published = side == Side::Outbox
        && batch
            .completed_incoming
            .iter()
            .any(|row_completion| row_completion.publishes.iter().any(|new| !new.held));
    inserted || given_back || published
}

fn no_number(request: &NodeRequest, reason: &NoNumber) -> StorageError {
    let requested = request.worker.unwrap_or_default();
    match reason {
        NoNumber::OutOfRange => StorageError::new(
            StorageErrorKind::Unusable,
            NAME,
            format!("worker id {requested} is out of range: use 0 to {MAX_WORKER}"),
        ),
        NoNumber::HeldBy(node) => StorageError::new(
            StorageErrorKind::Unusable,
            NAME,
            format!("worker id {requested} belongs to the node {node}, which lives: give each node its own"),
        ),
        NoNumber::AllTaken => StorageError::new(
            StorageErrorKind::Unavailable,
            NAME,
            "every worker id belongs to a node that lives; one is free when a node leaves",
        ),
    }
}

/// A bus that listens, until it is dropped.
struct Listening<'a> {
    storage: &'a MemoryStorage,
    key: u64,
}

impl<'a> Listening<'a> {
    fn new(storage: &'a MemoryStorage, wake: Wake) -> Self {
        let mut listeners = storage.listeners();
        let key = listeners.next;
        listeners.next += 1;
        listeners.wakes.insert(key, wake);
        drop(listeners);
        Self { storage, key }
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.storage.listeners().wakes.remove(&self.key);
    }
}
