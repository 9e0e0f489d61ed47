//! Writes a batch of everything that has gathered, in one transaction.

use cap_adapter::storage::{
    NewIncoming, NewOutgoing, Owner, RowCompletion, Side, Stored, WriteBatch, WriteReport,
};
use cap_sql::repeated_write::{Repeated, first_of_each, spread};
use cap_sql::templates::Templates;
use sqlx::SqliteConnection;

use crate::connections::session::begin;
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::completion::Completion;
use crate::write::insert_incoming::InsertIncoming;
use crate::write::insert_outgoing::InsertOutgoing;
use crate::write::repeated_batch::RepeatedBatch;
use crate::write::work_left::{Signals, Work};

/// Writes batches.
#[derive(Debug)]
pub(crate) struct BatchWriter {
    pub(crate) outgoing: InsertOutgoing,
    pub(crate) incoming: InsertIncoming,
    pub(crate) completion: Completion,
    pub(crate) repeated: RepeatedBatch,
    pub(crate) signals: Signals,
}

impl BatchWriter {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            outgoing: InsertOutgoing::prepare(templates),
            incoming: InsertIncoming::prepare(templates),
            completion: Completion::prepare(templates),
            repeated: RepeatedBatch::prepare(templates),
            signals: Signals::prepare(templates),
        }
    }

    /// Writes the batch, and returns what became of each item and what work is left to others.
    pub(crate) async fn write(
        &self,
        connection: &mut SqliteConnection,
        owner: &Owner,
        batch: &WriteBatch,
    ) -> Result<(WriteReport, Work), Fault> {
        match self.in_one(connection, owner, batch, None).await {
            // The call is most likely repeated, after an answer that was lost. The first try was rolled back whole, so
            // this one starts from the beginning.
            Err(fault) if fault.is_taken_id() => {
                let repeated = self.repeated.find(connection, batch).await?;
                self.in_one(connection, owner, batch, Some(&repeated)).await
            }
            other => other,
        }
    }

    async fn in_one(
        &self,
        connection: &mut SqliteConnection,
        owner: &Owner,
        batch: &WriteBatch,
        repeated: Option<&Repeated>,
    ) -> Result<(WriteReport, Work), Fault> {
        let (mut transaction, now) = begin(connection).await?;
        let mut writer = Writer {
            connection: &mut transaction,
            statements: self,
            writing: Writing { owner, now },
            repeated,
            work: Work::default(),
        };
        let report = writer.apply(batch).await?;
        let work = writer.work;
        work.announce(&mut transaction, &self.signals).await?;
        transaction.commit().await?;
        Ok((report, work))
    }
}

/// A batch on its way into the tables.
struct Writer<'a> {
    connection: &'a mut SqliteConnection,
    statements: &'a BatchWriter,
    writing: Writing<'a>,
    repeated: Option<&'a Repeated>,
    work: Work,
}

impl Writer<'_> {
    async fn apply(&mut self, batch: &WriteBatch) -> Result<WriteReport, Fault> {
        let outgoing: Vec<&NewOutgoing> = batch.outgoing.iter().collect();
        Ok(WriteReport {
            outgoing: self.insert_outgoing(&outgoing).await?,
            incoming: self.insert_incoming(&batch.incoming).await?,
            completed_incoming: self.complete_incoming(&batch.completed_incoming).await?,
            completed_outgoing: self.complete(Side::Outbox, &batch.completed_outgoing).await?,
        })
    }

    async fn insert_outgoing(&mut self, rows: &[&NewOutgoing]) -> Result<Vec<Stored>, Fault> {
        let (fresh, places) = first_of_each(rows.iter().copied(), |new| new.id, Side::Outbox, self.repeated);
        let insert = &self.statements.outgoing;
        let stored = insert.insert(self.connection, self.writing, &fresh, &mut self.work).await?;
        Ok(spread(rows.len(), &places, stored))
    }

    async fn insert_incoming(&mut self, rows: &[NewIncoming]) -> Result<Vec<Stored>, Fault> {
        let (fresh, places) = first_of_each(rows.iter(), |new| new.id, Side::Inbox, self.repeated);
        let insert = &self.statements.incoming;
        let stored = insert.insert(self.connection, self.writing, &fresh, &mut self.work).await?;
        Ok(spread(rows.len(), &places, stored))
    }

    /// Completes messages, and publishes what those outcomes publish whose leases held.
    async fn complete_incoming(&mut self, row_completions: &[RowCompletion]) -> Result<Vec<bool>, Fault> {
        let held = self.complete(Side::Inbox, row_completions).await?;
        let publishes: Vec<&NewOutgoing> = row_completions
            .iter()
            .zip(&held)
            .filter(|(_, held)| **held)
            .flat_map(|(row_completion, _)| &row_completion.publishes)
            .collect();
        let mut stored = self.insert_outgoing(&publishes).await?.into_iter();
        for (row_completion, _) in row_completions.iter().zip(&held).filter(|(_, held)| **held) {
            row_completion.warn_of_duplicates(stored.by_ref().take(row_completion.publishes.len()));
        }
        Ok(held)
    }

    async fn complete(&mut self, side: Side, row_completions: &[RowCompletion]) -> Result<Vec<bool>, Fault> {
        let completion = &self.statements.completion;
        completion.complete(self.connection, self.writing, side, row_completions, &mut self.work).await
    }
}
