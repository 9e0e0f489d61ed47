//! Claims rows that are due.

use cap_adapter::storage::{ClaimRequest, Claims, Owner, Side};
use cap_sql::checks::{check_owner, check_text};
use cap_sql::columns::{limit_of, span_of};
use cap_sql::templates::{Sides, Templates};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use crate::claim::claim_row::ClaimRow;
use crate::connections::session::{begin, now};
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::completion::Completion;

// The length of a body is known without reading it.

const DUE_OUTBOX: &str = "
SELECT id, due, epoch, status, attempts, attempts_before_rerun, reason, last_error,
    (SELECT length(m.body) FROM {prefix}outbox AS m WHERE m.id = s.id) AS size
FROM {prefix}outbox_state AS s INDEXED BY {prefix}outbox_state_due
WHERE version = ?1 AND due <= ?2
ORDER BY due, id
LIMIT ?3";

const DUE_INBOX: &str = "
SELECT id, due, epoch, status, attempts, attempts_before_rerun, reason, last_error,
    owner, crashes, started_epoch, started_alone,
    (SELECT length(m.body) FROM {prefix}inbox AS m WHERE m.id = s.id) AS size
FROM {prefix}inbox_state AS s INDEXED BY {prefix}inbox_state_due
WHERE version = ?1 AND due <= ?2 AND group_name = ?4
ORDER BY due, id
LIMIT ?3";

const NEXT_OUTBOX: &str = "
SELECT min(due) FROM {prefix}outbox_state INDEXED BY {prefix}outbox_state_due
WHERE version = ?1 AND due > ?2";

const NEXT_INBOX: &str = "
SELECT min(due) FROM {prefix}inbox_state INDEXED BY {prefix}inbox_state_due
WHERE version = ?1 AND due > ?2 AND group_name = ?3";

/// The maximum for the bodies of one claim, whatever is requested.
const CLAIMED_BYTES: usize = 64 << 20;

/// Claims rows that are due.
#[derive(Debug)]
pub(crate) struct ClaimDue {
    pub(crate) due: Sides,
    pub(crate) next_due: Sides,
    pub(crate) row: ClaimRow,
}

impl ClaimDue {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            due: Sides { outbox: templates.one(DUE_OUTBOX), inbox: templates.one(DUE_INBOX) },
            next_due: Sides { outbox: templates.one(NEXT_OUTBOX), inbox: templates.one(NEXT_INBOX) },
            row: ClaimRow::prepare(templates),
        }
    }
}

/// The rows that are looked for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    statements: &'a ClaimDue,
    owner: &'a Owner,
    side: Side,
    /// Rows are looked for group by group, as the index has them; the outbox is one group without a name.
    groups: Vec<Option<&'a str>>,
    limit: usize,
    bytes: usize,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(
        statements: &'a ClaimDue,
        owner: &'a Owner,
        request: &'a ClaimRequest,
    ) -> Result<Self, Fault> {
        check_owner(owner)?;
        let mut groups = vec![None];
        if request.side == Side::Inbox {
            groups = request.groups.iter().map(|group| Some(&**group)).collect();
            groups.sort_unstable();
            groups.dedup();
        }
        for group in groups.iter().flatten() {
            check_text("a group to claim for", group, usize::MAX)?;
        }
        let bytes = request.bytes.min(CLAIMED_BYTES);
        Ok(Self { statements, owner, side: request.side, groups, limit: request.limit, bytes })
    }

    /// Looks without the write lock: claims that find nothing, which are most, then block no writer. `None` when
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

    /// Claims the rows that are due. `completion` writes the outcome of those that cannot be read.
    pub(crate) async fn claim(
        &self,
        connection: &mut SqliteConnection,
        completion: &Completion,
    ) -> Result<Claims, Fault> {
        let (mut transaction, now) = begin(connection).await?;
        let writing = Writing { owner: self.owner, now };
        let mut due = self.due(&mut transaction, now).await?;
        // A claim of ours does not count.
        let later = self.next_after(&mut transaction, now).await?;
        let mut left_out = due.len() > self.limit;
        due.truncate(self.limit);
        let (mut rows, mut bytes) = (Vec::with_capacity(due.len()), 0);
        for row in &due {
            let size = row.try_get::<Option<i64>, _>("size")?.unwrap_or(0);
            bytes += usize::try_from(size).unwrap_or(usize::MAX);
            if bytes > self.bytes && !rows.is_empty() {
                left_out = true;
                break;
            }
            rows.extend(
                self.statements.row.claim(&mut transaction, writing, completion, self.side, row).await?,
            );
        }
        transaction.commit().await?;
        let next_due = if left_out { Some(now) } else { later };
        Ok(Claims { rows, next_due: next_due.map(|next| span_of(next - now)) })
    }

    /// The state rows that are due, the longest due first: one more than the limit, if there are as many.
    async fn due(&self, connection: &mut SqliteConnection, now: i64) -> Result<Vec<SqliteRow>, Fault> {
        let limit = limit_of(self.limit.saturating_add(1));
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
