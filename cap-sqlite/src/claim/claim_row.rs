//! Claims one row, and reads its message.

use cap_adapter::storage::{Claimed, Lease, Reason, Side};
use cap_sql::columns::{FAILED, count_of, reason_of, span_of};
use cap_sql::state_row::StateChange;
use cap_sql::templates::{Sides, Templates};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use crate::claim::crash_marks::{CountCrash, Past};
use crate::database::columns::message_at;
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::completion::Completion;

const CLAIM: &str = "
UPDATE {states} SET
    owner = ?2,
    due = ?3,
    epoch = epoch + 1,
    status = CASE WHEN status = 1 THEN 0 ELSE status END
WHERE id = ?1";

const MESSAGE: &str = "
SELECT m.headers, m.body, m.added, {group} AS group_name FROM {messages} AS m WHERE m.id = ?1";

/// Claims a row.
#[derive(Debug)]
pub(crate) struct ClaimRow {
    pub(crate) claim: Sides,
    pub(crate) message: Sides,
    pub(crate) crashes: CountCrash,
}

impl ClaimRow {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            claim: templates.sides(CLAIM),
            message: templates.sides(MESSAGE),
            crashes: CountCrash::prepare(templates),
        }
    }

    /// Claims a row. One that cannot be read waits for an operator, and the state row of a message that is gone goes too.
    pub(crate) async fn claim(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        completion: &Completion,
        side: Side,
        state: &SqliteRow,
    ) -> Result<Option<Claimed>, Fault> {
        let past = match side {
            Side::Outbox => Past::default(),
            Side::Inbox => Past::of(state)?,
        };
        let lease = Lease { id: state.try_get("id")?, epoch: state.try_get::<i32, _>("epoch")? + 1 };
        sqlx::query(self.claim.of(side))
            .bind(lease.id)
            .bind(&*writing.owner.node)
            .bind(writing.lease_end())
            .execute(&mut *connection)
            .await?;
        self.crashes.record(connection, writing, &past, state).await?;
        let message = sqlx::query(self.message.of(side)).bind(lease.id);
        let Some(message) = message.fetch_optional(&mut *connection).await? else {
            completion.end(connection, side, lease).await?;
            return Ok(None);
        };
        match claimed(state, past, &message, lease, writing.now)? {
            Ok(claimed) => Ok(Some(claimed)),
            Err(error) => {
                let row = lease.id;
                tracing::error!(row, ?side, error, "stored message is unreadable and was parked");
                completion.change(connection, writing, side, lease, &StateChange::corrupt(&error)).await?;
                Ok(None)
            }
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
    let is_notice = state.try_get::<i16, _>("status")? == FAILED;
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
