//! A batch of everything that has gathered, in one transaction.

use std::collections::HashSet;

use cap_adapter::storage::{
    Entry, NewIncoming, NewOutgoing, RowCompletion, RowOutcome, Side, Stored, WriteBatch, WriteReport,
};
use sqlx::{Connection as _, PgConnection};

use crate::complete;
use crate::error::Fault;
use crate::insert::{self, Candidate, Writing};

/// The primary keys: a violation means that a row id was used before, or stands twice in the batch.
const ROW_KEYS: [&str; 4] = ["outbox_pkey", "outbox_state_pkey", "inbox_pkey", "inbox_state_pkey"];

/// Row ids that are in the tables already, with the same message.
#[derive(Debug)]
struct Repeated {
    outbox: HashSet<i64>,
    inbox: HashSet<i64>,
}

/// Writes the batch.
pub(crate) async fn write(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    batch: &WriteBatch,
) -> Result<WriteReport, Fault> {
    let first = in_one(connection, writing, batch, None).await;
    let written = match first {
        // A row id that is taken: the call is most likely repeated, after an answer that was lost. The first try
        // was rolled back whole, so this one starts from the beginning.
        Err(fault) if ROW_KEYS.iter().any(|key| fault.violates(key)) => {
            let repeated = repeated(connection, writing, batch).await?;
            in_one(connection, writing, batch, Some(&repeated)).await
        }
        // Only the server knows what fits its encoding. What is parked, and what went wrong, is stored in any case.
        Err(fault) if fault.is_outside_encoding() => {
            if !writing.encoding.learn(connection, replaceable_texts(batch)).await? {
                return Err(fault);
            }
            in_one(connection, writing, batch, None).await
        }
        other => other,
    }?;
    if bytes_of(batch) > LARGE {
        // The driver's buffer would stay as large as the largest batch for as long as the connection lives.
        connection.shrink_buffers();
    }
    Ok(written)
}

/// From this size on, it is worth while to make the driver's buffers anew.
const LARGE: usize = 1024 * 1024;

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

/// One statement commits by itself, in one round trip; more than one go into a transaction.
async fn in_one(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    batch: &WriteBatch,
    repeated: Option<&Repeated>,
) -> Result<WriteReport, Fault> {
    if statements_for(batch) <= 1 {
        return apply(connection, writing, batch, repeated).await;
    }
    let mut transaction = connection.begin().await?;
    let report = apply(&mut transaction, writing, batch, repeated).await?;
    transaction.commit().await?;
    Ok(report)
}

fn statements_for(batch: &WriteBatch) -> usize {
    let publishes =
        batch.completed_incoming.iter().any(|row_completion| !row_completion.publishes.is_empty());
    [!batch.incoming.is_empty(), publishes].into_iter().filter(|any| *any).count()
        + insert::statements_for(&batch.outgoing)
        + complete::statements_for(&batch.completed_outgoing)
        + complete::statements_for(&batch.completed_incoming)
}

/// All writers go through the tables in this order.
async fn apply(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    batch: &WriteBatch,
    repeated: Option<&Repeated>,
) -> Result<WriteReport, Fault> {
    let outgoing: Vec<&NewOutgoing> = batch.outgoing.iter().collect();
    Ok(WriteReport {
        outgoing: insert_outgoing(connection, writing, &outgoing, repeated).await?,
        incoming: insert_incoming(connection, writing, &batch.incoming, repeated).await?,
        completed_incoming: complete_incoming(connection, writing, &batch.completed_incoming, repeated)
            .await?,
        completed_outgoing: complete::complete(connection, writing, Side::Outbox, &batch.completed_outgoing)
            .await?,
    })
}

async fn insert_outgoing(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    rows: &[&NewOutgoing],
    repeated: Option<&Repeated>,
) -> Result<Vec<Stored>, Fault> {
    let (fresh, places) =
        first_of_each(rows.iter().copied(), |new| new.id, repeated.map(|repeated| &repeated.outbox));
    if fresh.is_empty() {
        return Ok(vec![Stored::Duplicate; rows.len()]);
    }
    let stored = insert::outgoing(connection, writing, &fresh).await?;
    Ok(spread(rows.len(), &places, &stored))
}

async fn insert_incoming(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    rows: &[NewIncoming],
    repeated: Option<&Repeated>,
) -> Result<Vec<Stored>, Fault> {
    let (fresh, places) = first_of_each(rows.iter(), |new| new.id, repeated.map(|repeated| &repeated.inbox));
    if fresh.is_empty() {
        return Ok(vec![Stored::Duplicate; rows.len()]);
    }
    let stored = insert::incoming(connection, writing, &fresh).await?;
    Ok(spread(rows.len(), &places, &stored))
}

/// Completes, and puts into the outbox what the outcomes publish whose leases held.
async fn complete_incoming(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    row_completions: &[RowCompletion],
    repeated: Option<&Repeated>,
) -> Result<Vec<bool>, Fault> {
    let held = complete::complete(connection, writing, Side::Inbox, row_completions).await?;
    let publishes: Vec<&NewOutgoing> = row_completions
        .iter()
        .zip(&held)
        .filter(|(_, held)| **held)
        .flat_map(|(row_completion, _)| &row_completion.publishes)
        .collect();
    let mut stored = insert_outgoing(connection, writing, &publishes, repeated).await?.into_iter();
    for (row_completion, _) in row_completions.iter().zip(&held).filter(|(_, held)| **held) {
        row_completion.warn_of_duplicates(stored.by_ref().take(row_completion.publishes.len()));
    }
    Ok(held)
}

/// The rows to insert and their places: all, as ids are unique; or, once it is known that some are not, those that
/// are not there already, the first of each id.
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
    connection: &mut PgConnection,
    writing: Writing<'_>,
    batch: &WriteBatch,
) -> Result<Repeated, Fault> {
    let published = batch.completed_incoming.iter().flat_map(|row_completion| &row_completion.publishes);
    let outgoing = batch
        .outgoing
        .iter()
        .chain(published)
        .map(|new| Candidate::outgoing(new, writing.encoding))
        .collect();
    let incoming = batch.incoming.iter().map(|new| Candidate::incoming(new, writing.encoding)).collect();
    Ok(Repeated {
        outbox: insert::repeated_ids(connection, writing.statements, Side::Outbox, outgoing).await?,
        inbox: insert::repeated_ids(connection, writing.statements, Side::Inbox, incoming).await?,
    })
}
