//! New messages: one statement for any number of them, on whatever connection.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use cap_adapter::storage::{Digest, Entry, NewIncoming, NewOutgoing, Owner, Side, Stored, TransactionId};
use sqlx::postgres::PgRow;
use sqlx::types::time::OffsetDateTime;
use sqlx::{PgConnection, Row as _};

mod one;

pub(crate) use one::{CONFLICT, OUTGOING_ONE};

use crate::columns::{
    DELAYED, FAILED, SCHEDULED, check_group, check_message, check_owner, micros, side_name,
};
use crate::encoding::Encoding;
use crate::error::{Fault, without_nul};
use crate::identity;
use crate::statements::Statements;

// Every row of a statement gets the same time, that of the statement and not of the transaction: rows of one batch
// then stand in the order of their ids, and a transaction that takes long does not make its messages old.
//
// A message id that is another row's number would slip through the unique index, as that row has no text of its
// own; hence `same_as`. The sub-select is scalar, not `NOT EXISTS`, as the planner could turn that into a scan.
//
// The join is full, and its condition hidden in `coalesce`, as such a join can only be hashed or merged: with a
// plan made for ten rows, a loop over a thousand times a thousand would take its place.
//
// It also runs on connections of the application's, whose search path is the application's: every function, operator
// and type says that it is PostgreSQL's. `unnest` of several arrays is part of the syntax, and so are `coalesce` and the
// types that are keywords. `concat` of a digit and what may be missing or empty is a number.
pub(crate) const OUTGOING: &str = "
WITH inserted AS (
    INSERT INTO {schema}.outbox (id, version, name, message_id, headers, body, added)
    SELECT i.id, $2, i.name, i.message_id, i.headers, i.body, pg_catalog.statement_timestamp()
    FROM unnest($1::bigint[], $3::pg_catalog.text[], $4::pg_catalog.text[], $5::bigint[], $6::pg_catalog.text[],
        $7::pg_catalog.bytea[]) AS i(id, name, message_id, same_as, headers, body)
    WHERE i.same_as IS NULL OR (
        SELECT o.id FROM {schema}.outbox AS o
        WHERE o.id OPERATOR(pg_catalog.=) i.same_as AND o.message_id IS NULL
    ) IS NULL
    ON CONFLICT (message_id) WHERE message_id IS NOT NULL DO NOTHING
    RETURNING id
), stated AS (
    INSERT INTO {schema}.outbox_state (id, version, status, epoch, due, owner)
    SELECT i.id, $2, s.status, s.held::integer,
        pg_catalog.statement_timestamp()
            OPERATOR(pg_catalog.+) (s.wait OPERATOR(pg_catalog.*) interval '1 microsecond'),
        CASE WHEN s.held THEN $11 END
    FROM inserted AS i
    FULL JOIN unnest($1::bigint[], $8::smallint[], $9::boolean[], $10::bigint[]) AS s(id, status, held, wait)
        ON s.id OPERATOR(pg_catalog.=) i.id
    WHERE coalesce(i.id IS NOT NULL, false)
)
SELECT coalesce(pg_catalog.array_agg(id), '{}') AS ids,
    CASE WHEN $12 THEN pg_catalog.pg_notify($13, 'outbox')::pg_catalog.text END,
    CASE WHEN $14 THEN pg_catalog.set_config('cap.stored', (
        pg_catalog.concat('0', pg_catalog.current_setting('cap.stored', true))::bigint
            OPERATOR(pg_catalog.+) pg_catalog.count(*)
    )::pg_catalog.text, true)::integer END AS counted,
    CASE WHEN $15 THEN pg_catalog.txid_current() END AS transaction
FROM inserted";

// With a time it is that of an earlier statement, whose rows these belong to.
pub(crate) const INCOMING: &str = "
WITH inserted AS (
    INSERT INTO {schema}.inbox (id, version, name, group_name, message_id, headers, body, digest, added)
    SELECT i.id, $2, i.name, i.group_name, i.message_id, i.headers, i.body, i.digest, coalesce($18::timestamptz, statement_timestamp())
    FROM unnest($1::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $17::bytea[])
        AS i(id, name, group_name, message_id, headers, body, digest)
    ON CONFLICT (message_id, group_name) DO NOTHING
    RETURNING id
), stated AS (
    INSERT INTO {schema}.inbox_state
        (id, version, group_name, status, epoch, due, owner, reason, last_error, expires)
    SELECT i.id, $2, s.group_name, s.status, s.held::integer,
        coalesce($18::timestamptz, statement_timestamp()) + s.wait * interval '1 microsecond', CASE WHEN s.held THEN $13 END,
        s.reason, s.error, coalesce($18::timestamptz, statement_timestamp()) + s.keep * interval '1 microsecond'
    FROM inserted AS i
    FULL JOIN unnest($1::bigint[], $4::text[], $8::smallint[], $9::boolean[], $10::bigint[],
        $11::text[], $12::text[], $14::bigint[]) AS s(id, group_name, status, held, wait, reason, error, keep)
        ON s.id = i.id
    WHERE coalesce(i.id IS NOT NULL, false)
)
SELECT coalesce(array_agg(id), '{}') AS ids, coalesce($18::timestamptz, statement_timestamp()) AS added,
    CASE WHEN $15 THEN pg_notify($16, 'inbox')::text END FROM inserted";

/// Of these rows, the ones that are there already: whether each holds the same message.
pub(crate) const HELD_IDS: &str = "
SELECT m.id, m.headers = i.headers AND m.body = i.body AND {group} = i.group_name AS same
FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::text[]) AS i(id, headers, body, group_name)
JOIN {messages} AS m ON m.id = i.id";

/// The parts of a call that do not change from row to row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writing<'a> {
    pub(crate) statements: &'a Statements,
    pub(crate) owner: &'a Owner,
    /// Where work for other nodes is announced.
    pub(crate) channel: &'a str,
    /// Whether it is announced by the statement that leaves it. Not within a transaction of the application's, whose commit
    /// would wait for all others that announce something.
    pub(crate) announces: bool,
    /// Of the database.
    pub(crate) encoding: &'a Encoding,
    /// Whether statements are prepared under names, to be used again.
    pub(crate) prepared: bool,
}

/// What a caller wants to know of an insert on a connection of the application's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing but what became of the messages.
    Nothing,
    /// How many messages were stored in the transaction, which is counted in a setting of it.
    Count,
    /// The number of the transaction.
    Transaction,
}

/// What became of messages.
#[derive(Debug)]
pub(crate) struct Inserted {
    pub(crate) stored: Vec<Stored>,
    /// How many messages were stored in the transaction so far, if that was asked.
    pub(crate) counted: i32,
    /// The number of the transaction, if that was asked.
    pub(crate) transaction: Option<TransactionId>,
}

impl Inserted {
    /// `row` is the answer of the last statement; none if there was nothing to store.
    fn new(stored: Vec<Stored>, row: Option<&PgRow>) -> Result<Self, Fault> {
        let Some(row) = row else { return Ok(Self { stored, counted: 0, transaction: None }) };
        let transaction: Option<i64> = row.try_get("transaction")?;
        Ok(Self {
            stored,
            counted: row.try_get::<Option<i32>, _>("counted")?.unwrap_or(0),
            transaction: transaction.map(TransactionId),
        })
    }
}

/// One statement carries at most so many bytes of messages, or one message: what it carries is in memory twice while it is
/// written, and the server takes no more than 1 GiB.
const STATEMENT_BYTES: usize = 8 * 1024 * 1024;

/// Puts messages into the outbox, and says of each whether it is new. It takes [several statements](statements_for) where
/// the messages are large, so that it has to be in a transaction then.
pub(crate) async fn outgoing(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    rows: &[&NewOutgoing],
) -> Result<Vec<Stored>, Fault> {
    Ok(many(connection, writing, rows, STATEMENT_BYTES, Asked::Nothing).await?.stored)
}

/// How many statements these messages take at most: one, or more than one.
pub(crate) fn statements_for(rows: &[NewOutgoing]) -> usize {
    let bytes: usize = rows.iter().map(|new| new.message.size()).sum();
    if bytes > STATEMENT_BYTES { rows.len() } else { rows.len().min(1) }
}

/// The first of the rows that go into one statement.
fn part<'a, 'b>(rows: &'b [&'a NewOutgoing], most: usize) -> (&'b [&'a NewOutgoing], &'b [&'a NewOutgoing]) {
    let mut bytes = 0;
    let fits = |new: &&&NewOutgoing| {
        bytes += new.message.size();
        bytes <= most
    };
    rows.split_at(rows.iter().take_while(fits).count().clamp(1, rows.len()))
}

/// As [`outgoing`], on a connection of the application's, where PostgreSQL makes plans as it likes.
pub(crate) async fn outgoing_within(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    rows: &[&NewOutgoing],
    asked: Asked,
) -> Result<Inserted, Fault> {
    if let [new] = rows
        && let Some(statement) = one::statement(&writing.statements.insert_one, new)
    {
        return one::insert(connection, writing, statement, new, asked).await;
    }
    // Nobody knows of a plain connection whether it is in a transaction: one statement in any case.
    let most = if asked == Asked::Transaction { usize::MAX } else { STATEMENT_BYTES };
    many(connection, writing, rows, most, asked).await
}

async fn many(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    rows: &[&NewOutgoing],
    most: usize,
    asked: Asked,
) -> Result<Inserted, Fault> {
    let owner = writing.owner;
    check_owner(&owner.version, &owner.node)?;
    for new in rows {
        check_message(new.id, &new.message)?;
    }
    // All writers insert in the order of the unique key, so that no two wait for each other. The sort is stable:
    // of two equal ones the first wins.
    let mut ordered = without_repeats(rows);
    ordered.sort_by_key(|new| own_message_id(new));
    let (mut inserted, mut last, mut rest) = (Vec::new(), None, &ordered[..]);
    while !rest.is_empty() {
        let part;
        (part, rest) = self::part(rest, most);
        let (ids, row) = insert_part(connection, writing, part, asked).await?;
        inserted.extend(ids);
        last = Some(row);
    }
    Inserted::new(report(&inserted, rows.iter().map(|new| new.id)), last.as_ref())
}

/// One statement. Gives back which rows it has inserted, and its answer.
async fn insert_part(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    ordered: &[&NewOutgoing],
    asked: Asked,
) -> Result<(Vec<i64>, PgRow), Fault> {
    let Writing { statements, owner, channel, encoding, prepared, announces } = writing;
    let ids: Vec<i64> = ordered.iter().map(|new| new.id).collect();
    let names: Vec<&str> = ordered.iter().map(|new| new.message.name().unwrap_or_default()).collect();
    let message_ids: Vec<Option<&str>> = ordered.iter().map(|new| own_message_id(new)).collect();
    let same_as: Vec<Option<i64>> = message_ids.iter().map(|id| id.and_then(number)).collect();
    let headers: Vec<String> =
        ordered.iter().map(|new| encoding.headers(new.message.headers.to_json())).collect();
    let bodies: Vec<&[u8]> = ordered.iter().map(|new| &*new.message.body).collect();
    let statuses: Vec<i16> =
        ordered.iter().map(|new| if new.delay.is_some() { DELAYED } else { SCHEDULED }).collect();
    let held: Vec<bool> = ordered.iter().map(|new| new.held && new.delay.is_none()).collect();
    let waits: Vec<i64> = ordered.iter().map(|new| wait(new, owner)).collect();
    let leaves_work = announces && held.iter().any(|held| !held);
    let row = sqlx::query(statements.insert_outgoing.clone())
        .persistent(prepared)
        .bind(&ids)
        .bind(&*owner.version)
        .bind(&names)
        .bind(&message_ids)
        .bind(&same_as)
        .bind(&headers)
        .bind(&bodies)
        .bind(&statuses)
        .bind(&held)
        .bind(&waits)
        .bind(&*owner.node)
        .bind(leaves_work)
        .bind(channel)
        .bind(asked == Asked::Count)
        .bind(asked == Asked::Transaction)
        .fetch_one(connection)
        .await?;
    Ok((row.try_get::<Vec<i64>, _>("ids")?, row))
}

/// In how many microseconds a row is due.
fn wait(new: &NewOutgoing, owner: &Owner) -> i64 {
    match new.delay {
        Some(delay) => micros(delay),
        None if new.held => micros(owner.lease),
        None => 0,
    }
}

/// Puts messages into the inbox, and says of each whether it is new, known, or another's.
pub(crate) async fn incoming(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    rows: &[&NewIncoming],
) -> Result<Vec<Stored>, Fault> {
    let (mut stored, added) = incoming_rows(connection, writing, rows, None).await?;
    identity::resolve(connection, writing, rows, &mut stored, added).await?;
    Ok(stored)
}

/// As [`incoming`], but every message whose id is taken counts as a duplicate. The rows have the given time, or else that
/// of the statement, which is given back.
pub(crate) async fn incoming_rows(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    rows: &[&NewIncoming],
    added: Option<OffsetDateTime>,
) -> Result<(Vec<Stored>, OffsetDateTime), Fault> {
    let Writing { statements, owner, channel, encoding, prepared, .. } = writing;
    check_owner(&owner.version, &owner.node)?;
    for new in rows {
        check_message(new.id, &new.message)?;
        check_group(new.id, &new.group)?;
    }
    let mut ordered = rows.to_vec();
    // All writers insert in the order of the unique key, so that no two wait for each other.
    ordered.sort_by_cached_key(|new| (new.stored_message_id(), &*new.group));
    let ids: Vec<i64> = ordered.iter().map(|new| new.id).collect();
    // What is parked has to be stored, if need be under another name and id: its headers still have them. What could be
    // handled is refused instead, so that it comes back to be parked.
    let is_parked = |new: &NewIncoming| matches!(new.entry, Entry::Parked { .. });
    let names: Vec<Cow<'_, str>> = ordered
        .iter()
        .map(|new| {
            let name = new.message.name().unwrap_or_default();
            if is_parked(new) { encoding.fitting(name) } else { Cow::Borrowed(name) }
        })
        .collect();
    let groups: Vec<&str> = ordered.iter().map(|new| &*new.group).collect();
    let message_ids: Vec<Option<Cow<'_, str>>> = ordered
        .iter()
        .map(|new| {
            let id = new.stored_message_id()?;
            Some(if is_parked(new) { encoding.fitting_id(&id).into_owned().into() } else { id })
        })
        .collect();
    let headers: Vec<String> =
        ordered.iter().map(|new| encoding.headers(new.message.headers.to_json())).collect();
    let bodies: Vec<&[u8]> = ordered.iter().map(|new| &*new.message.body).collect();
    let digests: Vec<Option<&[u8]>> =
        ordered.iter().map(|new| new.identity.digest.as_ref().map(Digest::as_bytes)).collect();
    let entries: Vec<EntryColumns> = ordered.iter().map(|new| EntryColumns::new(&new.entry, owner)).collect();
    let leaves_work = entries.iter().any(|entry| entry.status == SCHEDULED && !entry.held);
    let row = sqlx::query(statements.insert_incoming.clone())
        .persistent(prepared)
        .bind(&ids)
        .bind(&*owner.version)
        .bind(&names)
        .bind(&groups)
        .bind(&message_ids)
        .bind(&headers)
        .bind(&bodies)
        .bind(entries.iter().map(|entry| entry.status).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.held).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.wait).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.reason).collect::<Vec<_>>())
        .bind(
            entries
                .iter()
                .map(|entry| entry.error.as_deref().map(|e| encoding.escaped(e)))
                .collect::<Vec<_>>(),
        )
        .bind(&*owner.node)
        .bind(entries.iter().map(|entry| entry.keep).collect::<Vec<_>>())
        .bind(leaves_work)
        .bind(channel)
        .bind(&digests)
        .bind(added)
        .fetch_one(connection)
        .await?;
    let stored = report(&row.try_get::<Vec<i64>, _>("ids")?, rows.iter().map(|new| new.id));
    Ok((stored, row.try_get("added")?))
}

/// How a received message's state row begins.
struct EntryColumns {
    status: i16,
    held: bool,
    wait: Option<i64>,
    reason: Option<&'static str>,
    error: Option<String>,
    keep: Option<i64>,
}

impl EntryColumns {
    fn new(entry: &Entry, owner: &Owner) -> Self {
        let lease = micros(owner.lease);
        match entry {
            Entry::Scheduled { held } => Self {
                status: SCHEDULED,
                held: *held,
                wait: Some(if *held { lease } else { 0 }),
                reason: None,
                error: None,
                keep: None,
            },
            Entry::Parked { reason, error, keep, notify } => Self {
                status: FAILED,
                held: *notify,
                wait: notify.then_some(lease),
                reason: Some(reason.as_str()),
                error: Some(without_nul(error).into_owned()),
                keep: Some(micros(*keep)),
            },
        }
    }
}

/// Without the rows whose message id is the row id of another one here, which the statement could not see.
fn without_repeats<'a>(rows: &[&'a NewOutgoing]) -> Vec<&'a NewOutgoing> {
    let is_plain = |new: &&&NewOutgoing| own_message_id(new).is_none();
    let plain: HashSet<i64> = rows.iter().filter(is_plain).map(|new| new.id).collect();
    let repeats =
        |new: &NewOutgoing| own_message_id(new).and_then(number).is_some_and(|id| plain.contains(&id));
    rows.iter().copied().filter(|new| !repeats(new)).collect()
}

/// The message id, unless the row id in decimal says the same.
fn own_message_id(new: &NewOutgoing) -> Option<&str> {
    new.message.id().filter(|id| number(id) != Some(new.id))
}

/// The number that a text is the usual decimal form of.
fn number(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

/// Of several rows with one id only the first was inserted.
fn report(inserted: &[i64], ids: impl Iterator<Item = i64>) -> Vec<Stored> {
    let mut inserted: HashSet<i64> = inserted.iter().copied().collect();
    ids.map(|id| if inserted.remove(&id) { Stored::New } else { Stored::Duplicate }).collect()
}

/// A row to be inserted, as far as it matters whether it is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate<'a> {
    headers: String,
    body: &'a [u8],
    group: &'a str,
}

impl<'a> Candidate<'a> {
    pub(crate) fn outgoing(new: &'a NewOutgoing, encoding: &Encoding) -> (i64, Self) {
        let headers = encoding.headers(new.message.headers.to_json());
        (new.id, Self { headers, body: &new.message.body, group: "" })
    }

    pub(crate) fn incoming(new: &'a NewIncoming, encoding: &Encoding) -> (i64, Self) {
        let headers = encoding.headers(new.message.headers.to_json());
        (new.id, Self { headers, body: &new.message.body, group: &new.group })
    }
}

/// The row ids that are in the table with the very same message, as after a repeated call. Two messages under one
/// id are refused: one of them would be lost without a word.
pub(crate) async fn repeated_ids(
    connection: &mut PgConnection,
    statements: &Statements,
    side: Side,
    candidates: Vec<(i64, Candidate<'_>)>,
) -> Result<HashSet<i64>, Fault> {
    let mut by_id = HashMap::new();
    for (id, candidate) in candidates {
        if by_id.insert(id, candidate.clone()).is_some_and(|earlier| earlier != candidate) {
            return Err(clash(side, id));
        }
    }
    let rows = sqlx::query(statements.held_ids.of(side))
        .bind(by_id.keys().copied().collect::<Vec<_>>())
        .bind(by_id.values().map(|candidate| candidate.headers.as_str()).collect::<Vec<_>>())
        .bind(by_id.values().map(|candidate| candidate.body).collect::<Vec<_>>())
        .bind(by_id.values().map(|candidate| candidate.group).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let mut repeated = HashSet::new();
    for row in rows {
        let id = row.try_get("id")?;
        if !row.try_get::<bool, _>("same")? {
            return Err(clash(side, id));
        }
        repeated.insert(id);
    }
    Ok(repeated)
}

fn clash(side: Side, id: i64) -> Fault {
    let table = side_name(side);
    Fault::Refused(format!(
        "row {id} of the {table} holds another message; do two nodes have the same worker id?"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_usual_form_of_a_number_is_one() {
        assert_eq!(number("17"), Some(17));
        for text in ["017", "+17", "", "seventeen", "99999999999999999999"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
