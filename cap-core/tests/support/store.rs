//! A store that fails on demand.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cap_core::error::{StorageError, StorageErrorKind};
use cap_core::memory::MemoryStorage;
use cap_core::monitor::{Among, Change, Count, FailedAttempt, Monitor, Query, Row};
use cap_core::storage::{
    ClaimRequest, Claimed, Claims, Expiry, Lease, LookedFor, NodeRequest, Owner, SharedKey, Side, StartMark,
    Storage, TransactionId, Wake, WriteBatch, WriteReport,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, StorageError>;

/// What is asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    Write,
    Claim,
    /// Of leases and of the worker id.
    Renew,
    /// Everything else.
    Other,
}

pub const ALL: [Call; 4] = [Call::Write, Call::Claim, Call::Renew, Call::Other];

/// A store in memory whose calls fail as the test wants it. Clones share it all.
#[derive(Debug, Clone, Default)]
pub struct Shaky {
    pub inner: MemoryStorage,
    state: Arc<Mutex<State>>,
}

/// Says of a batch whether its write fails.
type Picky = Box<dyn Fn(&WriteBatch) -> bool + Send>;

#[derive(Default)]
struct State {
    picky: Option<(Picky, StorageErrorKind)>,
    is_full: bool,
    failing: HashMap<Call, StorageErrorKind>,
    answers_to_lose: usize,
    claims: HashMap<Arc<str>, usize>,
    marks: Vec<usize>,
    /// Plain transactions that have ended, with the rows that each has left.
    ended: HashMap<TransactionId, HashSet<i64>>,
    looks: usize,
    announced: usize,
    gate: Option<Arc<Gate>>,
    keyless: bool,
}

/// Where an answer waits.
#[derive(Debug, Default)]
pub struct Gate {
    pub reached: Notify,
    pub open: Notify,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("failing", &self.failing).finish_non_exhaustive()
    }
}

impl Shaky {
    /// Has those writes fail from now on of which the test says so.
    pub fn fail_when(&self, kind: StorageErrorKind, picky: impl Fn(&WriteBatch) -> bool + Send + 'static) {
        self.state().picky = Some((Box::new(picky), kind));
    }

    /// Has no place for a key, as a store that somebody has written for an earlier version.
    pub fn without_key() -> Self {
        let store = Self::default();
        store.state().keyless = true;
        store
    }

    /// What fails from now on fails for want of room.
    pub fn fill(&self) {
        self.state().is_full = true;
    }

    /// On a store that others use too.
    pub fn over(inner: MemoryStorage) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Has calls fail from now on.
    pub fn fail(&self, calls: &[Call], kind: StorageErrorKind) {
        self.state().failing.extend(calls.iter().map(|call| (*call, kind)));
    }

    /// Has calls succeed again.
    pub fn mend(&self, calls: &[Call]) {
        if calls.contains(&Call::Write) {
            self.state().picky = None;
        }
        self.state().failing.retain(|call, _| !calls.contains(call));
    }

    /// The next writes take place and are said to have failed.
    pub fn lose_answers(&self, count: usize) {
        self.state().answers_to_lose = count;
    }

    /// How many answers are still to be lost.
    pub fn answers_to_lose(&self) -> usize {
        self.state().answers_to_lose
    }

    /// How often work was asked for on behalf of a group.
    pub fn claims(&self, group: &str) -> usize {
        self.state().claims.get(group).copied().unwrap_or_default()
    }

    /// How many starts of suspects were noted by each statement.
    pub fn marks(&self) -> Vec<usize> {
        self.state().marks.clone()
    }

    /// A plain transaction has ended, and left these rows.
    pub fn end(&self, transaction: TransactionId, rows: impl IntoIterator<Item = i64>) {
        self.state().ended.insert(transaction, rows.into_iter().collect());
    }

    /// How often it was asked whether transactions have ended.
    pub fn looks(&self) -> usize {
        self.state().looks
    }

    /// How often other nodes were told of work.
    pub fn announced(&self) -> usize {
        self.state().announced
    }

    /// The next answer about transactions waits.
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(self.state().gate.insert(Arc::default()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, call: Call) -> Result<()> {
        match self.state().failing.get(&call) {
            Some(kind) => Err(StorageError::new(*kind, "shaky", "it was told to fail")),
            None => Ok(()),
        }
    }
}

impl Storage for Shaky {
    fn name(&self) -> &'static str {
        "shaky"
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn initialize(&self) -> Result<()> {
        self.check(Call::Other)
    }

    async fn join(&self, request: &NodeRequest) -> Result<u16> {
        self.check(Call::Other)?;
        self.inner.join(request).await
    }

    async fn keep_alive(&self, request: &NodeRequest, worker: u16) -> Result<bool> {
        self.check(Call::Renew)?;
        self.inner.keep_alive(request, worker).await
    }

    async fn leave(&self, node: &str, worker: u16) -> Result<()> {
        self.check(Call::Other)?;
        self.inner.leave(node, worker).await
    }

    async fn write(&self, owner: &Owner, batch: &WriteBatch) -> Result<WriteReport> {
        self.check(Call::Write)?;
        {
            let state = self.state();
            if let Some((picky, kind)) = &state.picky
                && picky(batch)
            {
                let error = StorageError::new(*kind, "shaky", "it does not take this batch");
                return Err(if state.is_full { error.out_of_room() } else { error });
            }
        }
        let report = self.inner.write(owner, batch).await?;
        let mut state = self.state();
        if state.answers_to_lose > 0 {
            state.answers_to_lose -= 1;
            return Err(StorageError::new(StorageErrorKind::Unavailable, "shaky", "the answer was lost"));
        }
        Ok(report)
    }

    async fn claim(&self, owner: &Owner, request: &ClaimRequest) -> Result<Claims> {
        self.check(Call::Claim)?;
        for group in &request.groups {
            *self.state().claims.entry(Arc::clone(group)).or_default() += 1;
        }
        self.inner.claim(owner, request).await
    }

    async fn claim_waiting(&self, owner: &Owner, leases: &[Lease]) -> Result<Vec<Option<Claimed>>> {
        self.check(Call::Claim)?;
        self.inner.claim_waiting(owner, leases).await
    }

    async fn shared_key(&self, fresh: &SharedKey) -> Result<Option<SharedKey>> {
        self.check(Call::Other)?;
        if self.state().keyless { Ok(None) } else { self.inner.shared_key(fresh).await }
    }

    async fn mark_started(&self, owner: &Owner, marks: &[StartMark]) -> Result<Vec<bool>> {
        self.check(Call::Other)?;
        self.state().marks.push(marks.len());
        // As long as a statement takes.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.inner.mark_started(owner, marks).await
    }

    async fn withdraw_crashes(&self, leases: &[Lease]) -> Result<()> {
        self.check(Call::Other)?;
        self.inner.withdraw_crashes(leases).await
    }

    async fn renew(&self, owner: &Owner, side: Side, leases: &[Lease]) -> Result<Vec<bool>> {
        self.check(Call::Renew)?;
        self.inner.renew(owner, side, leases).await
    }

    async fn look_for(&self, transactions: &[TransactionId], rows: &[i64]) -> Result<LookedFor> {
        self.check(Call::Other)?;
        let mut looked = LookedFor::default();
        let gate = {
            let mut state = self.state();
            state.looks += 1;
            for (id, left) in transactions.iter().filter_map(|id| Some((id, state.ended.get(id)?))) {
                looked.ended.insert(*id);
                looked.stored.extend(rows.iter().filter(|row| left.contains(row)));
            }
            state.gate.take()
        };
        if let Some(gate) = gate {
            gate.reached.notify_one();
            gate.open.notified().await;
        }
        Ok(looked)
    }

    async fn announce(&self, _: Side) -> Result<()> {
        self.state().announced += 1;
        Ok(())
    }

    async fn delete_expired(&self, expiry: &Expiry) -> Result<(u64, u64)> {
        self.check(Call::Other)?;
        self.inner.delete_expired(expiry).await
    }

    async fn listen(&self, wake: Wake, cancelled: CancellationToken) {
        self.inner.listen(wake, cancelled).await;
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Monitor for Shaky {
    async fn list(&self, query: &Query) -> Result<Vec<Row>> {
        self.check(Call::Other)?;
        self.inner.list(query).await
    }

    async fn list_ids(&self, query: &Query) -> Result<Vec<i64>> {
        self.check(Call::Other)?;
        self.inner.list_ids(query).await
    }

    async fn get(&self, side: Side, id: i64) -> Result<Option<Row>> {
        self.check(Call::Other)?;
        self.inner.get(side, id).await
    }

    async fn find(&self, side: Side, message_id: &str) -> Result<Vec<Row>> {
        self.check(Call::Other)?;
        self.inner.find(side, message_id).await
    }

    async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>> {
        self.check(Call::Other)?;
        self.inner.attempts(side, id).await
    }

    async fn rerun(&self, side: Side, ids: &[i64], among: Among, change: &Change) -> Result<Vec<i64>> {
        self.check(Call::Other)?;
        self.inner.rerun(side, ids, among, change).await
    }

    async fn cancel(&self, ids: &[i64], keep: Duration) -> Result<Vec<i64>> {
        self.check(Call::Other)?;
        self.inner.cancel(ids, keep).await
    }

    async fn delete(&self, side: Side, ids: &[i64], among: Among) -> Result<Vec<i64>> {
        self.check(Call::Other)?;
        self.inner.delete(side, ids, among).await
    }

    async fn counts(&self) -> Result<Vec<Count>> {
        self.check(Call::Other)?;
        self.inner.counts().await
    }
}
