//! The store as one node reaches it: through a line on which calls get lost, late, or stuck.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use cap_core::Completion;
use cap_core::error::{StorageError, StorageErrorKind};
use cap_core::monitor::{Among, Change, Count, FailedAttempt, Monitor, Query, Row};
use cap_core::storage::{
    ClaimRequest, Claimed, Claims, Expiry, Lease, NewOutgoing, NodeRequest, Owner, RowOutcome, SharedKey,
    Side, StartMark, Storage, Stored, Wake, WriteBatch, WriteReport,
};
use cap_ledger::{End, Event};
use tokio_util::sync::CancellationToken;

use crate::job::{name, number_of};
use crate::life::Life;
use crate::plan::LEASE;
use crate::run::Run;

/// The store as one node reaches it.
#[derive(Debug, Clone)]
pub(crate) struct SimStorage(pub(crate) Arc<Life>);

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Late(Duration),
    AnswerLate(Duration),
    NeverSent,
    AnswerLost,
    /// Nothing is heard of it for longer than anyone waits.
    Hangs,
    AnswerHangs,
    DeathBefore,
    DeathAfter,
}

/// Longer than every deadline of the engine.
const FOR_EVER: Duration = Duration::from_secs(100);

impl SimStorage {
    /// Carries a call over the line. The call itself is over in an instant of virtual time, and whole.
    async fn call<T>(
        &self,
        orderly: bool,
        op: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let _under_way = self.0.world.called();
        self.there().await?;
        match self.fault(orderly) {
            None => {
                let result = op.await;
                self.there().await?;
                result
            }
            Some(Fault::Late(time)) => {
                tokio::time::sleep(time).await;
                self.there().await?;
                op.await
            }
            Some(Fault::AnswerLate(time)) => {
                let result = op.await;
                tokio::time::sleep(time).await;
                self.there().await?;
                result
            }
            Some(Fault::NeverSent) => Err(unavailable("the call was lost")),
            Some(Fault::AnswerLost) => {
                let _ = op.await;
                Err(unavailable("the answer was lost"))
            }
            Some(Fault::Hangs) => {
                tokio::time::sleep(FOR_EVER).await;
                Err(unavailable("the call hung"))
            }
            Some(Fault::AnswerHangs) => {
                let _ = op.await;
                tokio::time::sleep(FOR_EVER).await;
                Err(unavailable("the answer hung"))
            }
            Some(Fault::DeathBefore) => {
                self.0.die();
                Err(unavailable("the node is dead"))
            }
            Some(Fault::DeathAfter) => {
                let _ = op.await;
                self.0.die();
                Err(unavailable("the node is dead"))
            }
        }
    }

    /// Waits while the node stands still, and says whether the store can be reached.
    async fn there(&self) -> Result<(), StorageError> {
        if !self.0.is_well_soon().await {
            return Err(unavailable("the node is dead"));
        }
        if !self.0.reaches_store() {
            return Err(unavailable("the store is away"));
        }
        Ok(())
    }

    /// What goes wrong this time. On a call whose answer must not be lost, nothing that loses it.
    fn fault(&self, orderly: bool) -> Option<Fault> {
        let world = &self.0.world;
        if world.chance(world.plan.rates.death) {
            return Some(if world.pick(2) == 0 { Fault::DeathBefore } else { Fault::DeathAfter });
        }
        if !world.chance(world.plan.rates.store) {
            return None;
        }
        // Short enough that no lease runs out over it.
        let time = world.within(LEASE / 12);
        Some(match world.pick(if orderly { 8 } else { 14 }) {
            0..=2 => Fault::Late(time),
            3..=4 => Fault::AnswerLate(time),
            5..=6 => Fault::NeverSent,
            7 => Fault::Hangs,
            8 => Fault::AnswerHangs,
            _ => Fault::AnswerLost,
        })
    }

    /// Refuses a batch for one bad row in it, as a store does that cannot hold what is in the row: every time that
    /// it is written, and not if it has been taken before.
    fn refuse(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        let world = &self.0.world;
        // A follow-up that is parked would be missed for good.
        let jobs = batch.incoming.iter().filter(|row| number_of(&row.message).is_some());
        let rows: Vec<i64> = (batch.outgoing.iter().map(|row| row.id))
            .chain(jobs.filter(|_| !world.plan.orderly).map(|row| row.id))
            .chain(successes(batch).map(|lease| lease.id))
            .filter(|row| !world.has_taken(*row))
            .collect();
        if world.chance(world.plan.rates.refused_row) && !rows.is_empty() {
            world.refuse(rows[world.pick(rows.len())]);
        }
        if !world.is_calm() && rows.iter().any(|row| world.refuses(*row)) {
            for lease in successes(batch).filter(|lease| world.refuses(lease.id)) {
                self.note_refusal(lease.id);
            }
            // One that is refused under every row id is parked.
            for row in batch.incoming.iter().filter(|row| world.refuses(row.id)) {
                if let Some(number) = number_of(&row.message) {
                    let group = row.group.trim_end_matches(".v1").to_owned();
                    world.note(Event::StoreRefused { message: name(number), group });
                }
            }
            return Err(StorageError::new(StorageErrorKind::Refused, NAME, "a row is refused"));
        }
        Ok(())
    }

    fn note_refusal(&self, row: i64) {
        let world = &self.0.world;
        if let Some((message, group)) = world.job_of(row) {
            world.note(Event::StoreRefused { message, group });
        }
    }

    /// Notes which messages this node has stored, in order.
    fn note_received(&self, batch: &WriteBatch, report: &WriteReport) {
        let world = &self.0.world;
        for (row, stored) in batch.incoming.iter().zip(&report.incoming) {
            if *stored == Stored::New
                && let Some(number) = number_of(&row.message)
            {
                let group = row.group.trim_end_matches(".v1").to_owned();
                world.know_row(row.id, name(number), group.clone());
                let node = self.0.name.clone();
                world.note(Event::Received { message: name(number), group, node });
            }
        }
    }

    /// Commits a handler's work together with its outcome: all of it or nothing.
    pub(crate) async fn commit_handling(
        &self,
        completion: Completion,
        effects: Vec<Event>,
        run: Run,
    ) -> Result<bool, StorageError> {
        let world = &self.0.world;
        let Completion { owner, row_completion } = completion;
        let batch = WriteBatch { completed_incoming: vec![row_completion], ..WriteBatch::default() };
        let commit = async {
            self.refuse(&batch)?;
            let report = world.storage.write(&owner, &batch).await?;
            let held = report.completed_incoming == [true];
            if held {
                for effect in effects {
                    world.note(effect);
                }
            }
            run.end(if held { End::Succeeded } else { End::CalledOff });
            Ok(held)
        };
        let result = self.call(false, commit).await;
        // Unless it was noted above that it happened after all.
        match &result {
            Ok(_) => {}
            Err(error) if error.is_unavailable() => run.end(End::CalledOff),
            Err(_) => run.end(End::Failed),
        }
        result
    }

    /// A statement within a transaction of the application: nothing comes of it before the commit.
    pub(crate) async fn statement(&self) -> Result<(), StorageError> {
        self.call(false, async { Ok(()) }).await
    }

    /// Commits an application's transaction: its messages are stored together.
    pub(crate) async fn commit_messages(
        &self,
        owner: &Owner,
        rows: Vec<NewOutgoing>,
    ) -> Result<(), StorageError> {
        let batch = WriteBatch { outgoing: rows, ..WriteBatch::default() };
        self.write(owner, &batch).await.map(drop)
    }
}

impl Storage for SimStorage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn initialize(&self) -> Result<(), StorageError> {
        self.call(false, self.0.world.storage.initialize()).await
    }

    async fn join(&self, request: &NodeRequest) -> Result<u16, StorageError> {
        self.call(false, self.0.world.storage.join(request)).await
    }

    async fn keep_alive(&self, request: &NodeRequest, worker: u16) -> Result<bool, StorageError> {
        self.call(false, self.0.world.storage.keep_alive(request, worker)).await
    }

    async fn leave(&self, node: &str, worker: u16) -> Result<(), StorageError> {
        self.call(false, self.0.world.storage.leave(node, worker)).await
    }

    async fn write(&self, owner: &Owner, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
        let world = &self.0.world;
        let orderly = world.plan.orderly && !batch.incoming.is_empty();
        let write = async {
            self.refuse(batch)?;
            let report = world.storage.write(owner, batch).await?;
            world.take(batch.outgoing.iter().map(|row| row.id).chain(successes(batch).map(|lease| lease.id)));
            self.note_received(batch, &report);
            Ok(report)
        };
        self.call(orderly, write).await
    }

    async fn claim(&self, owner: &Owner, request: &ClaimRequest) -> Result<Claims, StorageError> {
        self.call(false, self.0.world.storage.claim(owner, request)).await
    }

    async fn claim_waiting(
        &self,
        owner: &Owner,
        leases: &[Lease],
    ) -> Result<Vec<Option<Claimed>>, StorageError> {
        self.call(false, self.0.world.storage.claim_waiting(owner, leases)).await
    }

    async fn shared_key(&self, fresh: &SharedKey) -> Result<Option<SharedKey>, StorageError> {
        self.call(false, self.0.world.storage.shared_key(fresh)).await
    }

    async fn mark_started(&self, owner: &Owner, marks: &[StartMark]) -> Result<Vec<bool>, StorageError> {
        self.call(false, self.0.world.storage.mark_started(owner, marks)).await
    }

    async fn withdraw_crashes(&self, leases: &[Lease]) -> Result<(), StorageError> {
        self.call(false, self.0.world.storage.withdraw_crashes(leases)).await
    }

    async fn renew(&self, owner: &Owner, side: Side, leases: &[Lease]) -> Result<Vec<bool>, StorageError> {
        if side == Side::Outbox {
            return self.call(false, self.0.world.storage.renew(owner, side, leases)).await;
        }
        self.0.renewal_held_up();
        let renew = async {
            let held = self.0.world.storage.renew(owner, side, leases).await;
            self.0.renewed();
            held
        };
        self.call(false, renew).await
    }

    async fn delete_expired(&self, expiry: &Expiry) -> Result<(u64, u64), StorageError> {
        self.call(false, self.0.world.storage.delete_expired(expiry)).await
    }

    async fn listen(&self, wake: Wake, cancelled: CancellationToken) {
        self.0.world.storage.listen(wake, cancelled).await;
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Monitor for SimStorage {
    async fn list(&self, query: &Query) -> Result<Vec<Row>, StorageError> {
        self.call(false, self.0.world.storage.list(query)).await
    }

    async fn list_ids(&self, query: &Query) -> Result<Vec<i64>, StorageError> {
        self.call(false, self.0.world.storage.list_ids(query)).await
    }

    async fn get(&self, side: Side, id: i64) -> Result<Option<Row>, StorageError> {
        self.call(false, self.0.world.storage.get(side, id)).await
    }

    async fn find(&self, side: Side, message_id: &str) -> Result<Vec<Row>, StorageError> {
        self.call(false, self.0.world.storage.find(side, message_id)).await
    }

    async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        self.call(false, self.0.world.storage.attempts(side, id)).await
    }

    async fn rerun(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> Result<Vec<i64>, StorageError> {
        self.call(false, self.0.world.storage.rerun(side, ids, among, change)).await
    }

    async fn cancel(&self, ids: &[i64], keep: Duration) -> Result<Vec<i64>, StorageError> {
        self.call(false, self.0.world.storage.cancel(ids, keep)).await
    }

    async fn delete(&self, side: Side, ids: &[i64], among: Among) -> Result<Vec<i64>, StorageError> {
        self.call(false, self.0.world.storage.delete(side, ids, among)).await
    }

    async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        self.call(false, self.0.world.storage.counts()).await
    }
}

fn successes(batch: &WriteBatch) -> impl Iterator<Item = Lease> {
    let completed =
        batch.completed_incoming.iter().filter(|one| matches!(one.outcome, RowOutcome::Succeeded { .. }));
    completed.map(|row_completion| row_completion.lease)
}

const NAME: &str = "simulated store";

fn unavailable(why: &str) -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, NAME, why)
}
