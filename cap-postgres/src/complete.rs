//! What becomes of state rows: each word is said under a lease, and counts only while the row is held under it.

use std::borrow::Cow;
use std::collections::HashSet;

use cap_adapter::storage::{Lease, Owner, Retention, RowCompletion, RowOutcome, Side};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _, SqlStr};

use crate::columns::{FAILED, RETRYING, SUCCEEDED, micros};
use crate::error::{Fault, without_nul};
use crate::insert::Writing;
use crate::statements::{Complete, Sides};

// The row's lock is held from the moment that the fence is checked until the transaction ends: nobody can claim the
// row in between. `{rows}` is empty, or limits the input to one row, so that a plan made on a connection of the
// application's, without the settings of ours, looks the row up by its key.
//
// There the search path is the application's, too: all but `END` say of every function, operator and type that it is
// PostgreSQL's, as the insert of messages does.

// A row that was re-run stays, with nothing in it but its epoch, so that another re-run goes on counting from there and
// no lease is ever given twice. The second half is not entered when the first has found every row, as is usual.
// The function `forget` of the schema does the same for one row.
pub(crate) const FORGET: &str = "
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
pub(crate) const END: &str = "
DELETE FROM {states} AS x
USING unnest($1::bigint[], $2::integer[]) AS s(id, epoch)
WHERE x.id = s.id AND x.epoch = s.epoch AND x.owner IS NOT NULL";

pub(crate) const DELETE: &str = "
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

// Without a new status the row stays as it was, save for its owner and when it is due.
pub(crate) const CHANGE: &str = "
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

/// Which statement a outcome takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Forget,
    Delete,
    Change,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Change, Self::Forget, Self::Delete];

    fn of(outcome: &RowOutcome) -> Self {
        match outcome {
            RowOutcome::Succeeded { retention: Retention::Forget, reason: None } => Self::Forget,
            RowOutcome::Succeeded { retention: Retention::Delete, reason: None } => Self::Delete,
            _ => Self::Change,
        }
    }
}

/// Whether nothing is to be left of the row.
pub(crate) fn is_forgotten(outcome: &RowOutcome) -> bool {
    Kind::of(outcome) == Kind::Forget
}

/// How many statements these outcomes take at least.
pub(crate) fn statements_for(row_completions: &[RowCompletion]) -> usize {
    let kinds = Kind::ALL
        .iter()
        .filter(|kind| row_completions.iter().any(|one| Kind::of(&one.outcome) == **kind))
        .count();
    let mut seen = HashSet::new();
    let repeated = row_completions.iter().any(|one| !seen.insert(one.lease.id));
    kinds + usize::from(repeated)
}

/// Applies outcomes, and says of each whether its lease held.
pub(crate) async fn complete(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    side: Side,
    row_completions: &[RowCompletion],
) -> Result<Vec<bool>, Fault> {
    let mut held = vec![false; row_completions.len()];
    let mut rest: Vec<usize> = (0..row_completions.len()).collect();
    // A statement changes a row once; of several words about one row the later ones come in a round of their own.
    while !rest.is_empty() {
        let mut seen = HashSet::new();
        let (round, later): (Vec<usize>, Vec<usize>) =
            rest.into_iter().partition(|index| seen.insert(row_completions[*index].lease.id));
        rest = later;
        for kind in Kind::ALL {
            let mut part: Vec<usize> = round
                .iter()
                .copied()
                .filter(|index| Kind::of(&row_completions[*index].outcome) == kind)
                .collect();
            if part.is_empty() {
                continue;
            }
            // All writers take their locks in the order of the ids.
            part.sort_by_key(|index| row_completions[*index].lease.id);
            let chosen: Vec<&RowCompletion> = part.iter().map(|index| &row_completions[*index]).collect();
            let statement = &writing.statements.complete;
            let applied = apply(connection, statement, writing, side, kind, &chosen).await?;
            for index in part {
                held[index] = applied.contains(&row_completions[index].lease.id);
            }
        }
    }
    Ok(held)
}

/// As [`complete`] for one outcome on a connection of the application's.
pub(crate) async fn complete_one(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    side: Side,
    row_completion: &RowCompletion,
) -> Result<bool, Fault> {
    let kind = Kind::of(&row_completion.outcome);
    let statement = &writing.statements.complete_one;
    Ok(!apply(connection, statement, writing, side, kind, &[row_completion]).await?.is_empty())
}

async fn apply(
    connection: &mut PgConnection,
    statements: &Complete,
    writing: Writing<'_>,
    side: Side,
    kind: Kind,
    row_completions: &[&RowCompletion],
) -> Result<HashSet<i64>, Fault> {
    let leases: Vec<Lease> = row_completions.iter().map(|row_completion| row_completion.lease).collect();
    match kind {
        Kind::Forget => end(connection, &statements.forget, writing, side, &leases).await,
        Kind::Delete => end(connection, &statements.delete, writing, side, &leases).await,
        Kind::Change => {
            let changes: Vec<Change<'_>> = row_completions
                .iter()
                .map(|one| Change::new(one.lease, &one.outcome, writing.owner))
                .collect();
            change(connection, &statements.change, writing, side, &changes).await
        }
    }
}

/// Removes state rows whose messages are not there.
pub(crate) async fn end_orphans(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    side: Side,
    leases: &[Lease],
) -> Result<(), Fault> {
    bind_leases(writing.statements.end_orphans.of(side), leases).execute(connection).await?;
    Ok(())
}

fn bind_leases(statement: SqlStr, leases: &[Lease]) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(statement)
        .bind(leases.iter().map(|lease| lease.id).collect::<Vec<_>>())
        .bind(leases.iter().map(|lease| lease.epoch).collect::<Vec<_>>())
}

async fn end(
    connection: &mut PgConnection,
    statement: &Sides,
    writing: Writing<'_>,
    side: Side,
    leases: &[Lease],
) -> Result<HashSet<i64>, Fault> {
    let bound = bind_leases(statement.of(side), leases).persistent(writing.prepared);
    let row = bound.fetch_one(connection).await?;
    Ok(row.try_get::<Vec<i64>, _>("ids")?.into_iter().collect())
}

/// What a state row is changed to.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    lease: Lease,
    /// None: as it was, with its reason and expiry.
    status: Option<i16>,
    counted: bool,
    due: Due,
    held: bool,
    reason: Option<&'static str>,
    error: Option<Cow<'a, str>>,
    keep: Option<i64>,
    /// When the next attempt is due, in microseconds from now, to be recorded with the one that failed.
    next: Option<i64>,
}

/// From when on a row may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Never,
    SinceAdded,
    /// Microseconds from now.
    After(i64),
    /// Microseconds from now, if the broker has not come before.
    WithoutBroker(i64),
}

impl<'a> Change<'a> {
    /// Nobody works on the row, it is never due, and nothing else has changed.
    fn idle(lease: Lease) -> Self {
        Self {
            lease,
            status: None,
            counted: false,
            due: Due::Never,
            held: false,
            reason: None,
            error: None,
            keep: None,
            next: None,
        }
    }

    /// A row that cannot be read: it has failed, and stays until an operator has seen it.
    pub(crate) fn corrupt(lease: Lease, error: &'a str) -> Self {
        let reason = Some(cap_adapter::storage::Reason::Corrupt.as_str());
        Self { status: Some(FAILED), reason, error: Some(without_nul(error)), ..Self::idle(lease) }
    }

    fn new(lease: Lease, outcome: &'a RowOutcome, owner: &Owner) -> Self {
        let idle = Self::idle(lease);
        match outcome {
            RowOutcome::Succeeded { retention, reason } => Self {
                status: Some(SUCCEEDED),
                reason: reason.map(cap_adapter::storage::Reason::as_str),
                keep: match retention {
                    Retention::Keep(keep) => Some(micros(*keep)),
                    // Kept for its reason as long as a message that has nothing to tell, or until the collector
                    // comes by.
                    Retention::Forget => None,
                    Retention::Delete => Some(0),
                },
                ..idle
            },
            RowOutcome::Retry { after, hold, error } => Self {
                status: Some(RETRYING),
                counted: true,
                due: Due::After(micros(if *hold { owner.lease } else { *after })),
                held: *hold,
                error: Some(without_nul(error)),
                next: Some(if *hold { 0 } else { micros(*after) }),
                ..idle
            },
            RowOutcome::RetryAtBroker { after, spare, error } => Self {
                status: Some(RETRYING),
                counted: true,
                due: Due::WithoutBroker(micros(after.saturating_add(*spare))),
                error: Some(without_nul(error)),
                next: Some(micros(*after)),
                ..idle
            },
            RowOutcome::Failed { reason, error, counted, keep, notify } => Self {
                status: Some(FAILED),
                counted: *counted,
                due: if *notify { Due::After(micros(owner.lease)) } else { Due::Never },
                held: *notify,
                reason: Some(reason.as_str()),
                error: Some(without_nul(error)),
                keep: Some(micros(*keep)),
                ..idle
            },
            RowOutcome::Notified => idle,
            RowOutcome::Release { after } => {
                let due = if after.is_zero() { Due::SinceAdded } else { Due::After(micros(*after)) };
                Self { due, ..idle }
            }
        }
    }

    fn wait(&self) -> Option<i64> {
        match self.due {
            Due::After(wait) | Due::WithoutBroker(wait) => Some(wait),
            Due::Never | Due::SinceAdded => None,
        }
    }

    /// Whether other nodes should know when the row is due. What the broker keeps concerns them only if it does not
    /// come, and they find that out by themselves.
    fn leaves_work(&self) -> bool {
        !self.held && matches!(self.due, Due::SinceAdded | Due::After(_))
    }
}

/// Changes rows, and gives back the ids of those whose lease held. Each id may stand there once.
pub(crate) async fn change(
    connection: &mut PgConnection,
    statement: &Sides,
    writing: Writing<'_>,
    side: Side,
    changes: &[Change<'_>],
) -> Result<HashSet<i64>, Fault> {
    let row = sqlx::query(statement.of(side))
        .persistent(writing.prepared)
        .bind(changes.iter().map(|change| change.lease.id).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.lease.epoch).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.status).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.counted).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.due == Due::SinceAdded).collect::<Vec<_>>())
        .bind(changes.iter().map(Change::wait).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.held).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.reason).collect::<Vec<_>>())
        .bind(
            changes
                .iter()
                .map(|change| change.error.as_deref().map(|error| writing.encoding.escaped(error)))
                .collect::<Vec<_>>(),
        )
        .bind(changes.iter().map(|change| change.keep).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.next).collect::<Vec<_>>())
        .bind(&*writing.owner.node)
        .bind(writing.announces && changes.iter().any(Change::leaves_work))
        .bind(writing.channel)
        .bind(crate::columns::side_name(side))
        .fetch_one(connection)
        .await?;
    Ok(row.try_get::<Vec<i64>, _>("ids")?.into_iter().collect())
}
