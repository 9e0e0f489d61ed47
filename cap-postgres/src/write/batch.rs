//! Writes a batch of everything that has gathered, in one transaction.

use cap_adapter::storage::{
    Entry, NewIncoming, NewOutgoing, RowCompletion, RowOutcome, Side, Stored, WriteBatch, WriteReport,
};
use cap_sql::repeated_write::{Repeated, first_of_each, spread};
use cap_sql::templates::Templates;
use sqlx::{Connection as _, PgConnection};

use crate::database::driver_buffers::shrink_after;
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::completion::{self, Completion};
use crate::write::duplicate_delivery::DuplicateDelivery;
use crate::write::forget_both::ForgetBoth;
use crate::write::insert_incoming::InsertIncoming;
use crate::write::insert_outgoing::{self, InsertOutgoing};
use crate::write::repeated_batch::RepeatedBatch;

/// The primary keys: a violation means that a row id was used before, or is twice in the batch.
const ROW_KEYS: [&str; 4] = ["outbox_pkey", "outbox_state_pkey", "inbox_pkey", "inbox_state_pkey"];

/// Writes batches.
#[derive(Debug)]
pub(crate) struct BatchWriter {
    pub(crate) outgoing: InsertOutgoing,
    pub(crate) incoming: InsertIncoming,
    pub(crate) duplicates: DuplicateDelivery,
    pub(crate) completion: Completion,
    pub(crate) forget_both: ForgetBoth,
    pub(crate) repeated: RepeatedBatch,
}

impl BatchWriter {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            outgoing: InsertOutgoing::prepare(templates),
            incoming: InsertIncoming::prepare(templates),
            duplicates: DuplicateDelivery::prepare(templates),
            completion: Completion::prepare(templates),
            forget_both: ForgetBoth::prepare(templates),
            repeated: RepeatedBatch::prepare(templates),
        }
    }

    /// Writes the batch, and returns what became of each item.
    pub(crate) async fn write(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        batch: &WriteBatch,
    ) -> Result<WriteReport, Fault> {
        let first = self.in_one(connection, writing, batch, None).await;
        let written = match first {
            // A row id that is taken: the call is most likely repeated, after an answer that was lost. The first try
            // was rolled back whole, so this one starts from the beginning.
            Err(fault) if ROW_KEYS.iter().any(|key| fault.violates(key)) => {
                let repeated = self.repeated.find(connection, writing, batch).await?;
                self.in_one(connection, writing, batch, Some(&repeated)).await
            }
            // Only the server knows what fits its encoding. What is parked, and what went wrong, is stored in any case.
            Err(fault) if fault.is_outside_encoding() => {
                if !writing.encoding.learn(connection, replaceable_texts(batch)).await? {
                    return Err(fault);
                }
                self.in_one(connection, writing, batch, None).await
            }
            other => other,
        }?;
        shrink_after(connection, bytes_of(batch));
        Ok(written)
    }

    /// One statement commits by itself, in one round trip; more than one go into a transaction.
    async fn in_one(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        batch: &WriteBatch,
        repeated: Option<&Repeated>,
    ) -> Result<WriteReport, Fault> {
        if ForgetBoth::takes(batch) {
            let (completed_outgoing, completed_incoming) =
                self.forget_both.complete(connection, writing, batch).await?;
            return Ok(WriteReport { completed_outgoing, completed_incoming, ..WriteReport::default() });
        }
        if statements_for(batch) <= 1 {
            return self.apply(connection, writing, batch, repeated).await;
        }
        let mut transaction = connection.begin().await?;
        let report = self.apply(&mut transaction, writing, batch, repeated).await?;
        transaction.commit().await?;
        Ok(report)
    }

    /// All writers go through the tables in this order.
    async fn apply(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        batch: &WriteBatch,
        repeated: Option<&Repeated>,
    ) -> Result<WriteReport, Fault> {
        let outgoing: Vec<&NewOutgoing> = batch.outgoing.iter().collect();
        Ok(WriteReport {
            outgoing: self.insert_outgoing(connection, writing, &outgoing, repeated).await?,
            incoming: self.insert_incoming(connection, writing, &batch.incoming, repeated).await?,
            completed_incoming: self
                .complete_incoming(connection, writing, &batch.completed_incoming, repeated)
                .await?,
            completed_outgoing: self
                .completion
                .complete(connection, writing, Side::Outbox, &batch.completed_outgoing)
                .await?,
        })
    }

    async fn insert_outgoing(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        rows: &[&NewOutgoing],
        repeated: Option<&Repeated>,
    ) -> Result<Vec<Stored>, Fault> {
        let (fresh, places) = first_of_each(rows.iter().copied(), |new| new.id, Side::Outbox, repeated);
        if fresh.is_empty() {
            return Ok(vec![Stored::Duplicate; rows.len()]);
        }
        let stored = self.outgoing.insert(connection, writing, &fresh).await?;
        Ok(spread(rows.len(), &places, stored))
    }

    async fn insert_incoming(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        rows: &[NewIncoming],
        repeated: Option<&Repeated>,
    ) -> Result<Vec<Stored>, Fault> {
        let (fresh, places) = first_of_each(rows.iter(), |new| new.id, Side::Inbox, repeated);
        if fresh.is_empty() {
            return Ok(vec![Stored::Duplicate; rows.len()]);
        }
        let (mut stored, added) = self.incoming.insert(connection, writing, &fresh, None).await?;
        self.duplicates.resolve(connection, writing, &self.incoming, &fresh, &mut stored, added).await?;
        Ok(spread(rows.len(), &places, stored))
    }

    /// Completes messages, and publishes what those outcomes publish whose leases held.
    async fn complete_incoming(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        row_completions: &[RowCompletion],
        repeated: Option<&Repeated>,
    ) -> Result<Vec<bool>, Fault> {
        let held = self.completion.complete(connection, writing, Side::Inbox, row_completions).await?;
        let publishes: Vec<&NewOutgoing> = row_completions
            .iter()
            .zip(&held)
            .filter(|(_, held)| **held)
            .flat_map(|(row_completion, _)| &row_completion.publishes)
            .collect();
        let mut stored = self.insert_outgoing(connection, writing, &publishes, repeated).await?.into_iter();
        for (row_completion, _) in row_completions.iter().zip(&held).filter(|(_, held)| **held) {
            row_completion.warn_of_duplicates(stored.by_ref().take(row_completion.publishes.len()));
        }
        Ok(held)
    }
}

fn bytes_of(batch: &WriteBatch) -> usize {
    let outgoing = batch.outgoing.iter().map(|new| new.message.body.len()).sum::<usize>();
    outgoing + batch.incoming.iter().map(|new| new.message.body.len()).sum::<usize>()
}

/// The texts of a batch in which characters that do not fit the database's encoding are replaced.
fn replaceable_texts(batch: &WriteBatch) -> impl Iterator<Item = &str> {
    let parked = batch.incoming.iter().flat_map(|new| match &new.entry {
        Entry::Parked { error, .. } => [new.message.name(), Some(&**error)],
        Entry::Scheduled { .. } => [None, None],
    });
    let completed = batch.completed_incoming.iter().chain(&batch.completed_outgoing);
    let errors = completed.map(|row_completion| match &row_completion.outcome {
        RowOutcome::Retry { error, .. }
        | RowOutcome::RetryAtBroker { error, .. }
        | RowOutcome::Failed { error, .. } => Some(&**error),
        _ => None,
    });
    parked.chain(errors).flatten()
}

fn statements_for(batch: &WriteBatch) -> usize {
    let publishes =
        batch.completed_incoming.iter().any(|row_completion| !row_completion.publishes.is_empty());
    [!batch.incoming.is_empty(), publishes].into_iter().filter(|any| *any).count()
        + insert_outgoing::statements_for(&batch.outgoing)
        + completion::statements_for(&batch.completed_outgoing)
        + completion::statements_for(&batch.completed_incoming)
}
