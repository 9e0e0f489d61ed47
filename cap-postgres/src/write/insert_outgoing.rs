//! Inserts published messages: one statement for any number of them, on any connection.

use std::collections::HashSet;

use cap_adapter::storage::{NewOutgoing, Stored};
use cap_sql::checks::{check_message, check_owner};
use cap_sql::state_row::FirstState;
use cap_sql::templates::Templates;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _, SqlStr};

use crate::database::driver_buffers::{arguments, shrink_after};
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::insert_one::{self, InsertOne};
use crate::write::outgoing_row::{Asked, Inserted, number, own_message_id};

// Every row of a statement gets the same time, that of the statement and not of the transaction: rows of one batch
// then are in the order of their ids, and a transaction that takes long does not make its messages old.
//
// A message id that is another row's number would slip through the unique index, as that row has no text of its
// own; hence `same_as`. The sub-select is scalar, not `NOT EXISTS`, as the planner could turn that into a scan.
//
// The join is full, and its condition hidden in `coalesce`, as such a join can only be hashed or merged: with a
// plan made for ten rows, a loop over a thousand times a thousand would take its place.
//
// It also runs on connections of the application, whose search path is the application's: every function, operator
// and type is qualified as PostgreSQL's. `unnest` of several arrays is part of the syntax, and so are `coalesce` and the
// types that are keywords. `concat` of a digit and what may be missing or empty is a number.
const INSERT: &str = "
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

/// How many bytes of messages one statement carries at most, unless it is one message: they are in memory twice while it is
/// written, and the server takes no more than 1 GiB.
const STATEMENT_BYTES: usize = 8 * 1024 * 1024;

/// How many statements these messages take at most: one, or more than one.
pub(crate) fn statements_for(rows: &[NewOutgoing]) -> usize {
    let bytes: usize = rows.iter().map(|new| new.message.size()).sum();
    if bytes > STATEMENT_BYTES { rows.len() } else { rows.len().min(1) }
}

/// Inserts published messages.
#[derive(Debug)]
pub(crate) struct InsertOutgoing {
    pub(crate) many: SqlStr,
    pub(crate) one: InsertOne,
}

impl InsertOutgoing {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { many: templates.one(INSERT), one: InsertOne::prepare(templates) }
    }

    /// Inserts messages, and returns for each whether it is new. It takes [several statements](statements_for) where the
    /// messages are large, so that it has to be in a transaction then.
    ///
    /// One message alone, as is usual while there is little to do, is inserted by a simpler statement in half of the time.
    pub(crate) async fn insert(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        rows: &[&NewOutgoing],
    ) -> Result<Vec<Stored>, Fault> {
        if let [new] = rows
            // The simpler statement announces nothing.
            && (new.held || !writing.announces)
            && let Some(statement) = self.one.statement(new)
        {
            let inserted = insert_one::insert(connection, writing, statement, new, Asked::Nothing).await?;
            return Ok(inserted.stored);
        }
        Ok(self.insert_many(connection, writing, rows, STATEMENT_BYTES, Asked::Nothing).await?.stored)
    }

    /// As [`insert`](Self::insert), on a connection of the application, where PostgreSQL plans as it likes.
    pub(crate) async fn insert_within(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        rows: &[&NewOutgoing],
        asked: Asked,
    ) -> Result<Inserted, Fault> {
        let inserted = if let [new] = rows
            && let Some(statement) = self.one.statement(new)
        {
            insert_one::insert(connection, writing, statement, new, asked).await?
        } else {
            // A plain connection may or may not be in a transaction: one statement in any case.
            let most = if asked == Asked::Transaction { usize::MAX } else { STATEMENT_BYTES };
            self.insert_many(connection, writing, rows, most, asked).await?
        };
        shrink_after(connection, size_of(rows));
        Ok(inserted)
    }

    async fn insert_many(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        rows: &[&NewOutgoing],
        most: usize,
        asked: Asked,
    ) -> Result<Inserted, Fault> {
        let owner = writing.owner;
        check_owner(owner)?;
        for new in rows {
            check_message(new.id, &new.message)?;
        }
        // All writers insert in the order of the unique key, so that no two wait for each other. The sort is stable:
        // of two equal ones the first wins.
        let mut ordered = without_repeats(rows);
        ordered.sort_by_cached_key(|new| own_message_id(new));
        let (mut inserted, mut last, mut rest) = (Vec::new(), None, &ordered[..]);
        while !rest.is_empty() {
            let part;
            (part, rest) = next_part(rest, most);
            let (ids, row) = self.insert_part(connection, writing, part, asked).await?;
            inserted.extend(ids);
            last = Some(row);
        }
        Inserted::new(report(&inserted, rows.iter().map(|new| new.id)), last.as_ref())
    }

    /// Runs one statement, and returns which rows it has inserted, and its row.
    async fn insert_part(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        ordered: &[&NewOutgoing],
        asked: Asked,
    ) -> Result<(Vec<i64>, PgRow), Fault> {
        let Writing { owner, channel, encoding, prepared, announces } = writing;
        let ids: Vec<i64> = ordered.iter().map(|new| new.id).collect();
        let names: Vec<&str> = ordered.iter().map(|new| new.message.name().unwrap_or_default()).collect();
        let message_ids: Vec<Option<&str>> = ordered.iter().map(|new| own_message_id(new)).collect();
        let same_as: Vec<Option<i64>> = message_ids.iter().map(|id| id.and_then(number)).collect();
        let headers: Vec<String> =
            ordered.iter().map(|new| encoding.headers(new.message.headers.to_json())).collect();
        let bodies: Vec<&[u8]> = ordered.iter().map(|new| &*new.message.body).collect();
        let states: Vec<FirstState<'_>> =
            ordered.iter().map(|new| FirstState::of_outgoing(new, owner)).collect();
        let leaves_work = announces && states.iter().any(|state| !state.leased);
        let row = sqlx::query_with(self.many.clone(), arguments(size_of(ordered)))
            .persistent(prepared)
            .bind(&ids)
            .bind(&*owner.version)
            .bind(&names)
            .bind(&message_ids)
            .bind(&same_as)
            .bind(&headers)
            .bind(&bodies)
            .bind(states.iter().map(|state| state.status).collect::<Vec<_>>())
            .bind(states.iter().map(|state| state.leased).collect::<Vec<_>>())
            .bind(states.iter().map(|state| state.wait).collect::<Vec<_>>())
            .bind(&*owner.node)
            .bind(leaves_work)
            .bind(channel)
            .bind(asked == Asked::Count)
            .bind(asked == Asked::Transaction)
            .fetch_one(connection)
            .await?;
        Ok((row.try_get::<Vec<i64>, _>("ids")?, row))
    }
}

fn size_of(rows: &[&NewOutgoing]) -> usize {
    rows.iter().map(|new| new.message.size()).sum()
}

/// Splits the rows after those that go into the next statement.
fn next_part<'a, 'b>(
    rows: &'b [&'a NewOutgoing],
    most: usize,
) -> (&'b [&'a NewOutgoing], &'b [&'a NewOutgoing]) {
    let mut bytes = 0;
    let fits = |new: &&&NewOutgoing| {
        bytes += new.message.size();
        bytes <= most
    };
    rows.split_at(rows.iter().take_while(fits).count().clamp(1, rows.len()))
}

/// Leaves out the rows whose message id is the row id of another one here, which the statement could not see.
fn without_repeats<'a>(rows: &[&'a NewOutgoing]) -> Vec<&'a NewOutgoing> {
    let is_plain = |new: &&&NewOutgoing| own_message_id(new).is_none();
    let plain: HashSet<i64> = rows.iter().filter(is_plain).map(|new| new.id).collect();
    let repeats =
        |new: &NewOutgoing| own_message_id(new).and_then(number).is_some_and(|id| plain.contains(&id));
    rows.iter().copied().filter(|new| !repeats(new)).collect()
}

/// Of several rows with one id only the first was inserted.
pub(crate) fn report(inserted: &[i64], ids: impl Iterator<Item = i64>) -> Vec<Stored> {
    let mut inserted: HashSet<i64> = inserted.iter().copied().collect();
    ids.map(|id| if inserted.remove(&id) { Stored::New } else { Stored::Duplicate }).collect()
}
