//! A storage around the test's storage, which fails on demand.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use cap_core::error::{StorageError, StorageErrorKind};
use cap_core::monitor::{
    Act, Among, BoundedCounts, Change, Count, FailedAttempt, Lag, Monitor, NewAct, Query, Row, SearchLimits,
    SearchPage,
};
use cap_core::storage::{
    ClaimRequest, Claimed, Claims, Expiry, Lease, LookedFor, NodeRequest, Owner, RowCompletion, RowOutcome,
    SharedKey, Side, StartMark, Storage, TransactionId, Wake, WriteBatch, WriteReport,
};
use tokio_util::sync::CancellationToken;

use crate::faults::Faults;

pub(crate) struct FaultyStorage<S> {
    pub(crate) inner: S,
    pub(crate) faults: Arc<Faults>,
}

impl<S: Storage> FaultyStorage<S> {
    fn unavailable(&self, what: &str) -> StorageError {
        StorageError::new(
            StorageErrorKind::Unavailable,
            self.inner.name(),
            format!("{what} (a fault of the test)"),
        )
    }

    /// Writes all but the outcomes of handlers: their messages are released, as if their leases had expired, and the bus
    /// learns that its leases were lost.
    async fn write_without_outcomes(
        &self,
        owner: &Owner,
        batch: &WriteBatch,
    ) -> Result<WriteReport, StorageError> {
        let released = batch.completed_incoming.iter().map(|completion| RowCompletion {
            lease: completion.lease,
            outcome: RowOutcome::Release { after: Duration::ZERO },
            publishes: Vec::new(),
        });
        let without = WriteBatch {
            outgoing: batch.outgoing.clone(),
            incoming: batch.incoming.clone(),
            completed_outgoing: batch.completed_outgoing.clone(),
            completed_incoming: released.collect(),
        };
        let mut report = self.inner.write(owner, &without).await?;
        report.completed_incoming.fill(false);
        Ok(report)
    }
}

impl<S: Storage> Storage for FaultyStorage<S> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn check(&self) -> Result<(), StorageError> {
        self.inner.check()
    }

    async fn initialize(&self) -> Result<(), StorageError> {
        self.inner.initialize().await
    }

    async fn check_names(&self, names: &[&str]) -> Result<(), StorageError> {
        self.inner.check_names(names).await
    }

    async fn join(&self, request: &NodeRequest) -> Result<u16, StorageError> {
        self.inner.join(request).await
    }

    async fn keep_alive(&self, request: &NodeRequest, worker: u16) -> Result<bool, StorageError> {
        self.inner.keep_alive(request, worker).await
    }

    async fn leave(&self, node: &str, worker: u16) -> Result<(), StorageError> {
        self.inner.leave(node, worker).await
    }

    async fn shared_key(&self, fresh: &SharedKey) -> Result<Option<SharedKey>, StorageError> {
        self.inner.shared_key(fresh).await
    }

    async fn write(&self, owner: &Owner, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
        if self.faults.write_fails() {
            return Err(self.unavailable("the storage is unreachable"));
        }
        if !batch.completed_incoming.is_empty() && self.faults.lease_is_lost() {
            return self.write_without_outcomes(owner, batch).await;
        }
        let report = self.inner.write(owner, batch).await?;
        if self.faults.answer_is_lost() {
            return Err(self.unavailable("the connection broke after the commit"));
        }
        Ok(report)
    }

    async fn claim(&self, owner: &Owner, request: &ClaimRequest) -> Result<Claims, StorageError> {
        self.inner.claim(owner, request).await
    }

    async fn claim_waiting(
        &self,
        owner: &Owner,
        leases: &[Lease],
    ) -> Result<Vec<Option<Claimed>>, StorageError> {
        self.inner.claim_waiting(owner, leases).await
    }

    async fn mark_started(&self, owner: &Owner, marks: &[StartMark]) -> Result<Vec<bool>, StorageError> {
        self.inner.mark_started(owner, marks).await
    }

    async fn withdraw_crashes(&self, leases: &[Lease]) -> Result<(), StorageError> {
        self.inner.withdraw_crashes(leases).await
    }

    async fn renew(&self, owner: &Owner, side: Side, leases: &[Lease]) -> Result<Vec<bool>, StorageError> {
        self.inner.renew(owner, side, leases).await
    }

    async fn look_for(
        &self,
        transactions: &[TransactionId],
        rows: &[i64],
    ) -> Result<LookedFor, StorageError> {
        self.inner.look_for(transactions, rows).await
    }

    async fn announce(&self, side: Side) -> Result<(), StorageError> {
        self.inner.announce(side).await
    }

    async fn delete_expired(&self, expiry: &Expiry) -> Result<(u64, u64), StorageError> {
        self.inner.delete_expired(expiry).await
    }

    async fn listen(&self, wake: Wake, cancelled: CancellationToken) {
        self.inner.listen(wake, cancelled).await;
    }

    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }
}

impl<S: Storage + Monitor> Monitor for FaultyStorage<S> {
    async fn list(&self, query: &Query) -> Result<Vec<Row>, StorageError> {
        self.inner.list(query).await
    }

    async fn list_ids(&self, query: &Query) -> Result<Vec<i64>, StorageError> {
        self.inner.list_ids(query).await
    }

    async fn search(&self, query: &Query, limits: &SearchLimits) -> Result<SearchPage, StorageError> {
        self.inner.search(query, limits).await
    }

    async fn record(&self, act: &NewAct) -> Result<(), StorageError> {
        self.inner.record(act).await
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<Act>, StorageError> {
        self.inner.acts(before, limit).await
    }

    async fn lags(&self) -> Result<Option<Vec<Lag>>, StorageError> {
        self.inner.lags().await
    }

    async fn get(&self, side: Side, id: i64) -> Result<Option<Row>, StorageError> {
        self.inner.get(side, id).await
    }

    async fn find(&self, side: Side, message_id: &str) -> Result<Vec<Row>, StorageError> {
        self.inner.find(side, message_id).await
    }

    async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        self.inner.attempts(side, id).await
    }

    async fn rerun(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> Result<Vec<i64>, StorageError> {
        self.inner.rerun(side, ids, among, change).await
    }

    async fn cancel(&self, ids: &[i64], keep: Duration) -> Result<Vec<i64>, StorageError> {
        self.inner.cancel(ids, keep).await
    }

    async fn delete(&self, side: Side, ids: &[i64], among: Among) -> Result<Vec<i64>, StorageError> {
        self.inner.delete(side, ids, among).await
    }

    async fn bounded_counts(&self, limit: u32) -> Result<Option<BoundedCounts>, StorageError> {
        self.inner.bounded_counts(limit).await
    }

    async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        self.inner.counts().await
    }
}
