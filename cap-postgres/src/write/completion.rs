//! Completes messages: writes their outcomes to the state rows. An outcome counts only while its lease holds.

use std::collections::HashSet;

use cap_adapter::storage::{Lease, RowCompletion, RowOutcome, Side};
use cap_sql::columns::side_name;
use cap_sql::state_row::{CompletionKind, Due, StateChange};
use cap_sql::templates::{Sides, Templates};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _, SqlStr};

use crate::database::error::Fault;
use crate::database::writing::Writing;

// The row's lock is held from the moment that the fence is checked until the transaction ends: no node can claim the
// row in between. `{rows}` is empty, or limits the input to one row, so that a plan made on a connection of the
// application's, without the settings of ours, looks the row up by its key.
//
// There the search path is the application's, too: every statement but `END` qualifies each function, operator and type, as the
// insert of messages does.

// A row that was re-run stays, with nothing in it but its epoch, so that another re-run goes on counting from there and
// no lease is ever given twice. The second half is not entered when the first has found every row, as is usual.
// The function `forget` of the schema does the same for one row.
const FORGET: &str = "
WITH gone AS (
    DELETE FROM {states} AS x
    USING (SELECT * FROM unnest($1::bigint[], $2::integer[]) AS u(id, epoch) {rows}) AS s
    WHERE x.id OPERATOR(pg_catalog.=) s.id AND x.epoch OPERATOR(pg_catalog.=) s.epoch AND x.owner IS NOT NULL
        AND x.reruns OPERATOR(pg_catalog.=) 0
    RETURNING x.id
), emptied AS (
    UPDATE {states} AS x
    SET status = 4, reruns = 0, due = NULL, expires = NULL, owner = NULL, reason = NULL, last_error = NULL
    FROM (SELECT * FROM unnest($1::bigint[], $2::integer[]) AS u(id, epoch) {rows}) AS s
    WHERE x.id OPERATOR(pg_catalog.=) s.id AND x.epoch OPERATOR(pg_catalog.=) s.epoch AND x.owner IS NOT NULL
        AND x.reruns OPERATOR(pg_catalog.>) 0
        AND (SELECT pg_catalog.count(*) FROM gone) OPERATOR(pg_catalog.<) pg_catalog.cardinality($1::bigint[])
    RETURNING x.id
)
SELECT coalesce(pg_catalog.array_agg(e.id), '{}') AS ids
FROM (SELECT id FROM gone UNION ALL SELECT id FROM emptied) AS e";

/// Removes state rows whose messages are not there.
const END: &str = "
DELETE FROM {states} AS x
USING unnest($1::bigint[], $2::integer[]) AS s(id, epoch)
WHERE x.id = s.id AND x.epoch = s.epoch AND x.owner IS NOT NULL";

const DELETE: &str = "
WITH gone AS (
    DELETE FROM {states} AS x
    USING (SELECT * FROM unnest($1::bigint[], $2::integer[]) AS u(id, epoch) {rows}) AS s
    WHERE x.id OPERATOR(pg_catalog.=) s.id AND x.epoch OPERATOR(pg_catalog.=) s.epoch AND x.owner IS NOT NULL
    RETURNING x.id
), message AS (
    DELETE FROM {messages} AS m USING gone WHERE m.id OPERATOR(pg_catalog.=) gone.id
), past AS (
    DELETE FROM {schema}.attempts AS a USING gone
    WHERE a.side OPERATOR(pg_catalog.=) {side} AND a.id OPERATOR(pg_catalog.=) gone.id
)
SELECT coalesce(pg_catalog.array_agg(id), '{}') AS ids FROM gone";

// Without a new status the row stays as it was, except for its owner and when it is due.
const CHANGE: &str = "
WITH changed AS (
    UPDATE {states} AS x SET
        status = coalesce(s.status, x.status),
        attempts = x.attempts OPERATOR(pg_catalog.+) s.counted::integer,
        due = CASE
            WHEN s.since_added THEN coalesce(
                (SELECT m.added FROM {messages} AS m WHERE m.id OPERATOR(pg_catalog.=) x.id),
                pg_catalog.statement_timestamp()
            )
            ELSE pg_catalog.statement_timestamp()
                OPERATOR(pg_catalog.+) (s.wait OPERATOR(pg_catalog.*) interval '1 microsecond')
        END,
        owner = CASE WHEN s.held THEN $12 END,
        reason = CASE WHEN s.status IS NULL THEN x.reason ELSE s.reason END,
        last_error = coalesce(s.error, x.last_error),
        expires = CASE
            WHEN s.status IS NULL THEN x.expires
            ELSE pg_catalog.statement_timestamp()
                OPERATOR(pg_catalog.+) (s.keep OPERATOR(pg_catalog.*) interval '1 microsecond')
        END
    FROM (
        SELECT * FROM unnest($1::bigint[], $2::integer[], $3::smallint[], $4::boolean[], $5::boolean[],
            $6::bigint[], $7::boolean[], $8::pg_catalog.text[], $9::pg_catalog.text[], $10::bigint[], $11::bigint[])
            AS u(id, epoch, status, counted, since_added, wait, held, reason, error, keep, next) {rows}
    ) AS s
    WHERE x.id OPERATOR(pg_catalog.=) s.id AND x.epoch OPERATOR(pg_catalog.=) s.epoch AND x.owner IS NOT NULL
    RETURNING x.id, s.counted, x.attempts, s.error, s.next
), recorded AS (
    INSERT INTO {schema}.attempts (side, id, number, at, node, error, next_due)
    SELECT {side}, c.id, c.attempts, pg_catalog.statement_timestamp(), $12, coalesce(c.error, ''),
        pg_catalog.statement_timestamp()
            OPERATOR(pg_catalog.+) (c.next OPERATOR(pg_catalog.*) interval '1 microsecond')
    FROM changed AS c WHERE c.counted
)
SELECT coalesce(pg_catalog.array_agg(id), '{}') AS ids,
    CASE WHEN $13 THEN pg_catalog.pg_notify($14, $15)::pg_catalog.text END
FROM changed";

/// The three ways in which a state row is completed.
#[derive(Debug)]
pub(crate) struct ByKind {
    pub(crate) forget: Sides,
    pub(crate) delete: Sides,
    pub(crate) change: Sides,
}

impl ByKind {
    fn prepare(templates: &Templates, rows: &str) -> Self {
        let sides = |template: &str| templates.sides(&template.replace("{rows}", rows));
        Self { forget: sides(FORGET), delete: sides(DELETE), change: sides(CHANGE) }
    }
}

/// A change of one row, under its lease.
type LeasedChange<'a> = (Lease, StateChange<'a>);

/// Writes outcomes.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) many: ByKind,
    /// The same for a single row, on a connection of the application.
    pub(crate) one: ByKind,
    pub(crate) end_orphans: Sides,
}

impl Completion {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            many: ByKind::prepare(templates, ""),
            one: ByKind::prepare(templates, "LIMIT 1"),
            end_orphans: templates.sides(END),
        }
    }

    /// Applies outcomes, and returns for each whether its lease held.
    pub(crate) async fn complete(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        side: Side,
        row_completions: &[RowCompletion],
    ) -> Result<Vec<bool>, Fault> {
        let mut held = vec![false; row_completions.len()];
        let mut rest: Vec<usize> = (0..row_completions.len()).collect();
        // A statement changes a row once; of several outcomes of one row the later ones come in a round of their own.
        while !rest.is_empty() {
            let mut seen = HashSet::new();
            let (round, later): (Vec<usize>, Vec<usize>) =
                rest.into_iter().partition(|index| seen.insert(row_completions[*index].lease.id));
            rest = later;
            for kind in CompletionKind::ALL {
                let mut part: Vec<usize> = round
                    .iter()
                    .copied()
                    .filter(|index| CompletionKind::of(&row_completions[*index].outcome) == kind)
                    .collect();
                if part.is_empty() {
                    continue;
                }
                // All writers take their locks in the order of the ids.
                part.sort_by_key(|index| row_completions[*index].lease.id);
                let chosen: Vec<&RowCompletion> = part.iter().map(|index| &row_completions[*index]).collect();
                let applied = apply(connection, &self.many, writing, side, kind, &chosen).await?;
                for index in part {
                    held[index] = applied.contains(&row_completions[index].lease.id);
                }
            }
        }
        Ok(held)
    }

    /// As [`complete`](Self::complete) for one outcome on a connection of the application.
    pub(crate) async fn complete_one(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        side: Side,
        row_completion: &RowCompletion,
    ) -> Result<bool, Fault> {
        let kind = CompletionKind::of(&row_completion.outcome);
        Ok(!apply(connection, &self.one, writing, side, kind, &[row_completion]).await?.is_empty())
    }

    /// Fails rows that cannot be read: they stay until an operator has seen them.
    pub(crate) async fn fail_corrupt(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        side: Side,
        corrupt: &[(Lease, String)],
    ) -> Result<(), Fault> {
        let changes: Vec<LeasedChange<'_>> =
            corrupt.iter().map(|(lease, error)| (*lease, StateChange::corrupt(error))).collect();
        change(connection, &self.many.change, writing, side, &changes).await?;
        Ok(())
    }

    /// Removes state rows whose messages are gone.
    pub(crate) async fn end_orphans(
        &self,
        connection: &mut PgConnection,
        side: Side,
        leases: &[Lease],
    ) -> Result<(), Fault> {
        bind_leases(self.end_orphans.of(side), leases).execute(connection).await?;
        Ok(())
    }
}

/// Whether an outcome leaves nothing of the state row.
pub(crate) fn is_forgotten(outcome: &RowOutcome) -> bool {
    CompletionKind::of(outcome) == CompletionKind::Forget
}

/// How many statements these outcomes take at least.
pub(crate) fn statements_for(row_completions: &[RowCompletion]) -> usize {
    let kinds = CompletionKind::ALL
        .iter()
        .filter(|kind| row_completions.iter().any(|one| CompletionKind::of(&one.outcome) == **kind))
        .count();
    let mut seen = HashSet::new();
    let repeated = row_completions.iter().any(|one| !seen.insert(one.lease.id));
    kinds + usize::from(repeated)
}

async fn apply(
    connection: &mut PgConnection,
    statements: &ByKind,
    writing: Writing<'_>,
    side: Side,
    kind: CompletionKind,
    row_completions: &[&RowCompletion],
) -> Result<HashSet<i64>, Fault> {
    let statement = match kind {
        CompletionKind::Forget => &statements.forget,
        CompletionKind::Delete => &statements.delete,
        CompletionKind::Change => {
            let changes: Vec<LeasedChange<'_>> = row_completions
                .iter()
                .map(|one| (one.lease, StateChange::of(&one.outcome, writing.owner)))
                .collect();
            return change(connection, &statements.change, writing, side, &changes).await;
        }
    };
    let leases: Vec<Lease> = row_completions.iter().map(|row_completion| row_completion.lease).collect();
    let bound = bind_leases(statement.of(side), &leases).persistent(writing.prepared);
    let row = bound.fetch_one(connection).await?;
    Ok(row.try_get::<Vec<i64>, _>("ids")?.into_iter().collect())
}

fn bind_leases(statement: SqlStr, leases: &[Lease]) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(statement)
        .bind(leases.iter().map(|lease| lease.id).collect::<Vec<_>>())
        .bind(leases.iter().map(|lease| lease.epoch).collect::<Vec<_>>())
}

/// Changes rows, each at most once, and returns the ids of those whose lease held.
async fn change(
    connection: &mut PgConnection,
    statement: &Sides,
    writing: Writing<'_>,
    side: Side,
    changes: &[LeasedChange<'_>],
) -> Result<HashSet<i64>, Fault> {
    let row = sqlx::query(statement.of(side))
        .persistent(writing.prepared)
        .bind(changes.iter().map(|(lease, _)| lease.id).collect::<Vec<_>>())
        .bind(changes.iter().map(|(lease, _)| lease.epoch).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.status).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.counted).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.due == Due::SinceAdded).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.wait()).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.leased).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.reason).collect::<Vec<_>>())
        .bind(
            changes
                .iter()
                .map(|(_, change)| change.error.as_deref().map(|error| writing.encoding.escaped(error)))
                .collect::<Vec<_>>(),
        )
        .bind(changes.iter().map(|(_, change)| change.keep).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.next).collect::<Vec<_>>())
        .bind(&*writing.owner.node)
        .bind(writing.announces && changes.iter().any(|(_, change)| change.leaves_work()))
        .bind(writing.channel)
        .bind(side_name(side))
        .fetch_one(connection)
        .await?;
    Ok(row.try_get::<Vec<i64>, _>("ids")?.into_iter().collect())
}
