//! Claiming what is due, and keeping what was claimed.

use cap_adapter::storage::{ClaimRequest, Claimed, Claims, Lease, Owner, Reason, Side};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use crate::columns::{FAILED, check_owner, check_text, count_of, message_at, micros, reason_of, span_of};
use crate::complete::{self, Change};
use crate::crash::Past;
use crate::error::Fault;
use crate::insert::Writing;
use crate::session::{begin, now};
use crate::statements::Statements;

pub(crate) const DUE_OUTBOX: &str = "
SELECT id, due, epoch, status, attempts, attempts_before_rerun, reason, last_error
FROM {prefix}outbox_state INDEXED BY {prefix}outbox_state_due
WHERE version = ?1 AND due <= ?2
ORDER BY due, id
LIMIT ?3";

pub(crate) const DUE_INBOX: &str = "
SELECT id, due, epoch, status, attempts, attempts_before_rerun, reason, last_error,
    owner, crashes, started_epoch, started_alone
FROM {prefix}inbox_state INDEXED BY {prefix}inbox_state_due
WHERE version = ?1 AND due <= ?2 AND group_name = ?4
ORDER BY due, id
LIMIT ?3";

pub(crate) const WAITING: &str = "
SELECT id, epoch, status, attempts, attempts_before_rerun, reason, last_error,
    owner, crashes, started_epoch, started_alone
FROM {prefix}inbox_state
WHERE id = ?1 AND epoch = ?2 AND status = 2 AND owner IS NULL AND version = ?3";

pub(crate) const NEXT_OUTBOX: &str = "
SELECT min(due) FROM {prefix}outbox_state INDEXED BY {prefix}outbox_state_due
WHERE version = ?1 AND due > ?2";

pub(crate) const NEXT_INBOX: &str = "
SELECT min(due) FROM {prefix}inbox_state INDEXED BY {prefix}inbox_state_due
WHERE version = ?1 AND due > ?2 AND group_name = ?3";

pub(crate) const CLAIM: &str = "
UPDATE {states} SET
    owner = ?2,
    due = ?3,
    epoch = epoch + 1,
    status = CASE WHEN status = 1 THEN 0 ELSE status END
WHERE id = ?1";

pub(crate) const MESSAGE: &str = "
SELECT m.headers, m.body, m.added, {group} AS group_name FROM {messages} AS m WHERE m.id = ?1";

pub(crate) const RENEW: &str =
    "UPDATE {states} SET due = ?3 WHERE id = ?1 AND epoch = ?2 AND owner IS NOT NULL";

/// When the bodies that were claimed have so many bytes together, no further ones are, so that a claim fits into memory.
const CLAIMED_BYTES: usize = 64 << 20;

/// What is looked for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    statements: &'a Statements,
    owner: &'a Owner,
    side: Side,
    /// Rows are looked for group by group, as the index has them; the outbox is one group without a name.
    groups: Vec<Option<&'a str>>,
    limit: usize,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(
        statements: &'a Statements,
        owner: &'a Owner,
        request: &'a ClaimRequest,
    ) -> Result<Self, Fault> {
        check_owner(&owner.version, &owner.node)?;
        let mut groups = vec![None];
        if request.side == Side::Inbox {
            groups = request.groups.iter().map(|group| Some(&**group)).collect();
            groups.sort_unstable();
            groups.dedup();
        }
        for group in groups.iter().flatten() {
            check_text("a group to claim for", group, usize::MAX)?;
        }
        Ok(Self { statements, owner, side: request.side, groups, limit: request.limit })
    }

    /// Looks without the write lock: claims that find nothing, which are most, then disturb nobody. `None` when
    /// something is due.
    pub(crate) async fn nothing_due(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<Option<Claims>, Fault> {
        let next = self.next_after(connection, i64::MIN).await?;
        let now = now();
        Ok(match next {
            Some(next) if next <= now => None,
            next => Some(Claims { rows: Vec::new(), next_due: next.map(|next| span_of(next - now)) }),
        })
    }

    /// When the first row becomes due after a moment.
    async fn next_after(&self, connection: &mut SqliteConnection, moment: i64) -> Result<Option<i64>, Fault> {
        let mut first = None;
        for group in &self.groups {
            let statement = self.statements.next_due.of(self.side);
            let mut query =
                sqlx::query_scalar::<_, Option<i64>>(statement).bind(&*self.owner.version).bind(moment);
            if let Some(group) = group {
                query = query.bind(*group);
            }
            let next = query.fetch_one(&mut *connection).await?;
            first = first.into_iter().chain(next).min();
        }
        Ok(first)
    }

    /// Claims what is due.
    pub(crate) async fn claim(&self, connection: &mut SqliteConnection) -> Result<Claims, Fault> {
        let (mut transaction, now) = begin(connection).await?;
        let writing = Writing { statements: self.statements, owner: self.owner, now };
        let mut due = self.due(&mut transaction, now).await?;
        // A claim of ours does not count.
        let later = self.next_after(&mut transaction, now).await?;
        let mut left_out = due.len() > self.limit;
        due.truncate(self.limit);
        let (mut rows, mut bytes) = (Vec::with_capacity(due.len()), 0);
        for row in &due {
            if bytes >= CLAIMED_BYTES {
                left_out = true;
                break;
            }
            if let Some(claimed) = take(&mut transaction, writing, self.side, row).await? {
                bytes += claimed.message.body.len();
                rows.push(claimed);
            }
        }
        transaction.commit().await?;
        let next_due = if left_out { Some(now) } else { later };
        Ok(Claims { rows, next_due: next_due.map(|next| span_of(next - now)) })
    }

    /// The state rows that are due, the longest due first: one more than the limit, if there are so many.
    async fn due(&self, connection: &mut SqliteConnection, now: i64) -> Result<Vec<SqliteRow>, Fault> {
        let limit = i64::try_from(self.limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut due = Vec::new();
        for group in &self.groups {
            let mut query = sqlx::query(self.statements.due.of(self.side))
                .bind(&*self.owner.version)
                .bind(now)
                .bind(limit);
            if let Some(group) = group {
                query = query.bind(*group);
            }
            for row in query.fetch_all(&mut *connection).await? {
                let place: (i64, i64) = (row.try_get("due")?, row.try_get("id")?);
                due.push((place, row));
            }
        }
        due.sort_by_key(|(place, _)| *place);
        due.truncate(self.limit.saturating_add(1));
        Ok(due.into_iter().map(|(_, row)| row).collect())
    }
}

/// Claims rows that wait for the broker, those that still do.
pub(crate) async fn claim_waiting(
    connection: &mut SqliteConnection,
    statements: &Statements,
    owner: &Owner,
    leases: &[Lease],
) -> Result<Vec<Option<Claimed>>, Fault> {
    check_owner(&owner.version, &owner.node)?;
    let (mut transaction, now) = begin(connection).await?;
    let writing = Writing { statements, owner, now };
    let mut rows = Vec::with_capacity(leases.len());
    for lease in leases {
        let state = sqlx::query(statements.waiting.clone())
            .bind(lease.id)
            .bind(lease.epoch)
            .bind(&*owner.version)
            .fetch_optional(&mut *transaction)
            .await?;
        rows.push(match state {
            Some(state) => take(&mut transaction, writing, Side::Inbox, &state).await?,
            None => None,
        });
    }
    transaction.commit().await?;
    Ok(rows)
}

/// Claims a row. One whose message cannot be read waits for an operator, and one whose message is gone goes too.
async fn take(
    connection: &mut SqliteConnection,
    writing: Writing<'_>,
    side: Side,
    state: &SqliteRow,
) -> Result<Option<Claimed>, Fault> {
    let past = match side {
        Side::Outbox => Past::default(),
        Side::Inbox => Past::of(state)?,
    };
    let lease = Lease { id: state.try_get("id")?, epoch: state.try_get::<i32, _>("epoch")? + 1 };
    sqlx::query(writing.statements.claim.of(side))
        .bind(lease.id)
        .bind(&*writing.owner.node)
        .bind(writing.lease_end())
        .execute(&mut *connection)
        .await?;
    past.record(connection, writing, state).await?;
    let message = sqlx::query(writing.statements.message.of(side)).bind(lease.id);
    let Some(message) = message.fetch_optional(&mut *connection).await? else {
        complete::end(connection, writing, side, lease).await?;
        return Ok(None);
    };
    match claimed(state, past, &message, lease, writing.now)? {
        Ok(claimed) => Ok(Some(claimed)),
        Err(error) => {
            let row = lease.id;
            tracing::error!(row, ?side, error, "a stored message cannot be read and was set aside");
            Change::corrupt(&error).apply(connection, writing, side, lease).await?;
            Ok(None)
        }
    }
}

/// The row as it is claimed, or what is wrong with its message.
fn claimed(
    state: &SqliteRow,
    past: Past,
    message: &SqliteRow,
    lease: Lease,
    now: i64,
) -> Result<Result<Claimed, String>, sqlx::Error> {
    let group = message.try_get::<&str, _>("group_name")?.into();
    let age = span_of(now - message.try_get::<i64, _>("added")?);
    let message = match message_at(message)? {
        Ok(message) => message,
        Err(error) => return Ok(Err(error)),
    };
    let is_notice = state.try_get::<i64, _>("status")? == FAILED;
    let reason = reason_of(state.try_get("reason")?).unwrap_or(Reason::Exhausted);
    let error = state.try_get::<Option<String>, _>("last_error")?.unwrap_or_default();
    Ok(Ok(Claimed {
        lease,
        message,
        group,
        attempts: count_of(state.try_get("attempts")?),
        attempts_before_rerun: count_of(state.try_get("attempts_before_rerun")?),
        age,
        notice: is_notice.then_some((reason, error)),
        crashes: past.crashes,
        suspect: past.suspect,
    }))
}

/// Lengthens leases.
pub(crate) async fn renew(
    connection: &mut SqliteConnection,
    statements: &Statements,
    owner: &Owner,
    side: Side,
    leases: &[Lease],
) -> Result<Vec<bool>, Fault> {
    let (mut transaction, now) = begin(connection).await?;
    let mut held = Vec::with_capacity(leases.len());
    for lease in leases {
        let renew = sqlx::query(statements.renew.of(side))
            .bind(lease.id)
            .bind(lease.epoch)
            .bind(now + micros(owner.lease));
        held.push(renew.execute(&mut *transaction).await?.rows_affected() > 0);
    }
    transaction.commit().await?;
    Ok(held)
}
