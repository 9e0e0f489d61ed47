//! A store at which somebody looks, and then is overtaken.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use cap_core::error::{StorageError, StorageErrorKind};
use cap_core::memory::MemoryStorage;
use cap_core::monitor::{Among, Change, Count, FailedAttempt, Monitor, Query, Row};
use cap_core::storage::{
    ClaimRequest, Claimed, Claims, Expiry, Lease, NodeRequest, Owner, Side, Storage, Wake, WriteBatch,
    WriteReport,
};
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;

/// A store that waits after each list of ids until the test says to go on, and has no lists of whole messages.
#[derive(Clone)]
pub(crate) struct Between {
    store: MemoryStorage,
    barrier: Arc<Barrier>,
}

impl Between {
    pub(crate) fn new(store: &MemoryStorage) -> Self {
        Self { store: store.clone(), barrier: Arc::new(Barrier::new(2)) }
    }

    /// Waits until somebody has looked.
    pub(crate) async fn has_looked(&self) {
        self.barrier.wait().await;
    }

    /// Lets them act on what they have seen.
    pub(crate) async fn go_on(&self) {
        self.barrier.wait().await;
    }
}

impl Storage for Between {
    fn name(&self) -> &'static str {
        "between"
    }
    fn check(&self) -> Result<(), StorageError> {
        self.store.check()
    }
    async fn initialize(&self) -> Result<(), StorageError> {
        self.store.initialize().await
    }
    async fn join(&self, request: &NodeRequest) -> Result<u16, StorageError> {
        self.store.join(request).await
    }
    async fn keep_alive(&self, request: &NodeRequest, worker: u16) -> Result<bool, StorageError> {
        self.store.keep_alive(request, worker).await
    }
    async fn leave(&self, node: &str, worker: u16) -> Result<(), StorageError> {
        self.store.leave(node, worker).await
    }
    async fn write(&self, owner: &Owner, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
        self.store.write(owner, batch).await
    }
    async fn claim(&self, owner: &Owner, request: &ClaimRequest) -> Result<Claims, StorageError> {
        self.store.claim(owner, request).await
    }
    async fn claim_waiting(
        &self,
        owner: &Owner,
        leases: &[Lease],
    ) -> Result<Vec<Option<Claimed>>, StorageError> {
        self.store.claim_waiting(owner, leases).await
    }
    async fn renew(&self, owner: &Owner, side: Side, leases: &[Lease]) -> Result<Vec<bool>, StorageError> {
        self.store.renew(owner, side, leases).await
    }
    async fn delete_expired(&self, expiry: &Expiry) -> Result<(u64, u64), StorageError> {
        self.store.delete_expired(expiry).await
    }
    async fn listen(&self, wake: Wake, cancelled: CancellationToken) {
        self.store.listen(wake, cancelled).await;
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Monitor for Between {
    async fn list(&self, _: &Query) -> Result<Vec<Row>, StorageError> {
        Err(StorageError::new(StorageErrorKind::Refused, "between", "nobody asked for bodies"))
    }
    async fn list_ids(&self, query: &Query) -> Result<Vec<i64>, StorageError> {
        let ids = self.store.list_ids(query).await;
        self.barrier.wait().await;
        self.barrier.wait().await;
        ids
    }
    async fn get(&self, side: Side, id: i64) -> Result<Option<Row>, StorageError> {
        self.store.get(side, id).await
    }
    async fn find(&self, side: Side, message_id: &str) -> Result<Vec<Row>, StorageError> {
        self.store.find(side, message_id).await
    }
    async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        self.store.attempts(side, id).await
    }
    async fn rerun(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> Result<Vec<i64>, StorageError> {
        self.store.rerun(side, ids, among, change).await
    }
    async fn cancel(&self, ids: &[i64], keep: Duration) -> Result<Vec<i64>, StorageError> {
        self.store.cancel(ids, keep).await
    }
    async fn delete(&self, side: Side, ids: &[i64], among: Among) -> Result<Vec<i64>, StorageError> {
        self.store.delete(side, ids, among).await
    }
    async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        self.store.counts().await
    }
}
