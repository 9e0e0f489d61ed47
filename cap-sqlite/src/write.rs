//! A batch of everything that has gathered, in one transaction.

use std::collections::HashSet;

use cap_adapter::storage::{
    NewIncoming, NewOutgoing, Owner, RowCompletion, Side, Stored, WriteBatch, WriteReport,
};
use sqlx::SqliteConnection;

use crate::complete;
use crate::error::Fault;
use crate::insert::{self, Candidate, Writing};
use crate::session::begin;
use crate::statements::Statements;
use crate::work::Work;

/// Row ids that are in the tables already, with the same message.
#[derive(Debug)]
struct Repeated {
    outbox: HashSet<i64>,
    inbox: HashSet<i64>,
}

/// Writes the batch, and says what it leaves to others.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    statements: &Statements,
    owner: &Owner,
    batch: &WriteBatch,
) -> Result<(WriteReport, Work), Fault> {
    match in_one(connection, statements, owner, batch, None).await {
        // The call is most likely repeated, after an answer that was lost. The first try was rolled back whole, so this
        // one starts from the beginning.
        Err(fault) if fault.is_taken_id() => {
            let repeated = repeated(connection, statements, batch).await?;
            in_one(connection, statements, owner, batch, Some(&repeated)).await
        }
        other => other,
    }
}

async fn in_one(
    connection: &mut SqliteConnection,
    statements: &Statements,
    owner: &Owner,
    batch: &WriteBatch,
    repeated: Option<&Repeated>,
) -> Result<(WriteReport, Work), Fault> {
    let (mut transaction, now) = begin(connection).await?;
    let mut writer = Writer {
        connection: &mut transaction,
        writing: Writing { statements, owner, now },
        repeated,
        work: Work::default(),
    };
    let report = writer.apply(batch).await?;
    let work = writer.work;
    work.announce(&mut transaction, statements).await?;
    transaction.commit().await?;
    Ok((report, work))
}

/// A batch on its way into the tables.
struct Writer<'a> {
    connection: &'a mut SqliteConnection,
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
        let repeated = self.repeated.map(|repeated| &repeated.outbox);
        let (fresh, places) = first_of_each(rows.iter().copied(), |new| new.id, repeated);
        let stored = insert::outgoing(self.connection, self.writing, &fresh, &mut self.work).await?;
        Ok(spread(rows.len(), &places, &stored))
    }

    async fn insert_incoming(&mut self, rows: &[NewIncoming]) -> Result<Vec<Stored>, Fault> {
        let repeated = self.repeated.map(|repeated| &repeated.inbox);
        let (fresh, places) = first_of_each(rows.iter(), |new| new.id, repeated);
        let stored = insert::incoming(self.connection, self.writing, &fresh, &mut self.work).await?;
        Ok(spread(rows.len(), &places, &stored))
    }

    /// Completes, and puts into the outbox what the outcomes publish whose leases held.
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
        complete::complete(self.connection, self.writing, side, row_completions, &mut self.work).await
    }
}

/// The rows to insert and their places: all, as ids are unique; or, once it is known that some are not, those that are
/// not there already, the first of each id.
fn first_of_each<'a, T>(
    rows: impl Iterator<Item = &'a T>,
    id: impl Fn(&T) -> i64,
    repeated: Option<&HashSet<i64>>,
) -> (Vec<&'a T>, Vec<usize>) {
    let mut seen = HashSet::new();
    let mut is_first = |id: i64| repeated.is_none_or(|repeated| !repeated.contains(&id) && seen.insert(id));
    rows.enumerate().filter(|(_, row)| is_first(id(row))).map(|(place, row)| (row, place)).unzip()
}

fn spread(length: usize, places: &[usize], stored: &[Stored]) -> Vec<Stored> {
    let mut all = vec![Stored::Duplicate; length];
    for (place, stored) in places.iter().zip(stored) {
        all[*place] = *stored;
    }
    all
}

/// Which rows of the batch are there already.
async fn repeated(
    connection: &mut SqliteConnection,
    statements: &Statements,
    batch: &WriteBatch,
) -> Result<Repeated, Fault> {
    let published = batch.completed_incoming.iter().flat_map(|row_completion| &row_completion.publishes);
    let outgoing = batch.outgoing.iter().chain(published).map(Candidate::outgoing).collect();
    let incoming = batch.incoming.iter().map(Candidate::incoming).collect();
    Ok(Repeated {
        outbox: insert::repeated_ids(connection, statements, Side::Outbox, outgoing).await?,
        inbox: insert::repeated_ids(connection, statements, Side::Inbox, incoming).await?,
    })
}
