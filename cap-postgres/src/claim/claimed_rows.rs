//! Reads rows that were just claimed, with their messages.

use std::collections::HashMap;
use std::sync::Arc;

use cap_adapter::storage::{Claimed, Lease, Reason, Side, Suspect};
use cap_sql::columns::{FAILED, count_of, reason_of, span_of};
use cap_sql::templates::{Sides, Templates};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use crate::database::columns::message_at;
use crate::database::driver_buffers::shrink_after;
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::completion::Completion;

/// Messages as they are now.
const MESSAGES: &str = "SELECT m.id, m.headers, m.body FROM {messages} AS m WHERE m.id = ANY($1::bigint[])";

/// Reads claimed rows.
#[derive(Debug)]
pub(crate) struct ClaimedRows {
    pub(crate) messages: Sides,
}

impl ClaimedRows {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { messages: templates.sides(MESSAGES) }
    }

    /// Returns those of the claimed rows that can be handled. A row that cannot be read waits for an operator, and the state
    /// row of a message that is gone goes too. Each of the driver's rows is dropped once it is read, as it has a copy of the body.
    pub(crate) async fn read(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        completion: &Completion,
        side: Side,
        rows: Vec<PgRow>,
    ) -> Result<Vec<Claimed>, Fault> {
        let current = self.current_messages(connection, side, &rows).await?;
        let mut readable = Vec::with_capacity(rows.len());
        let mut corrupt = Vec::new();
        let mut orphans = Vec::new();
        for row in rows {
            let Some(id) = row.try_get::<Option<i64>, _>("id")? else { continue };
            let lease = Lease { id, epoch: row.try_get("epoch")? };
            if row.try_get::<Option<&str>, _>("headers")?.is_none() {
                orphans.push(lease);
                continue;
            }
            match claimed(&row, current.get(&id).unwrap_or(&row), lease)? {
                Ok(claimed) => readable.push(claimed),
                Err(error) => corrupt.push((lease, error)),
            }
        }
        if !corrupt.is_empty() {
            for (lease, error) in &corrupt {
                tracing::error!(row = lease.id, ?side, error, "stored message is unreadable and was parked");
            }
            completion.fail_corrupt(connection, writing, side, &corrupt).await?;
        }
        if !orphans.is_empty() {
            completion.end_orphans(connection, side, &orphans).await?;
        }
        shrink_after(connection, readable.iter().map(|row| row.message.body.len()).sum());
        Ok(readable)
    }

    /// Reads again the messages of rows that an operator has run again. A statement sees all messages as they were when it began,
    /// and such a message may have been changed before its row was claimed; now that the row is claimed, it stays.
    async fn current_messages(
        &self,
        connection: &mut PgConnection,
        side: Side,
        rows: &[PgRow],
    ) -> Result<HashMap<i64, PgRow>, Fault> {
        let mut ids = Vec::new();
        for row in rows {
            if row.try_get::<Option<i32>, _>("reruns")?.is_some_and(|reruns| reruns > 0) {
                ids.push(row.try_get::<i64, _>("id")?);
            }
        }
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let messages = sqlx::query(self.messages.of(side)).bind(ids).fetch_all(connection).await?;
        messages.into_iter().map(|message| Ok((message.try_get("id")?, message))).collect()
    }
}

/// The row as it is claimed, with its message, or what is wrong with that.
fn claimed(row: &PgRow, message: &PgRow, lease: Lease) -> Result<Result<Claimed, String>, sqlx::Error> {
    let message = match message_at(message)? {
        Ok(message) => message,
        Err(error) => return Ok(Err(error)),
    };
    let is_notice = row.try_get::<i16, _>("status")? == FAILED;
    let reason = reason_of(row.try_get("reason")?).unwrap_or(Reason::Exhausted);
    let error = row.try_get::<Option<String>, _>("last_error")?.unwrap_or_default();
    Ok(Ok(Claimed {
        lease,
        message,
        group: Arc::from(row.try_get::<&str, _>("group_name")?),
        attempts: count_of(row.try_get("attempts")?),
        attempts_before_rerun: count_of(row.try_get("attempts_before_rerun")?),
        age: span_of(row.try_get("age")?),
        notice: is_notice.then_some((reason, error)),
        crashes: count_of(row.try_get("crashes")?),
        suspect: suspect(row)?,
    }))
}

fn suspect(row: &PgRow) -> Result<Option<Suspect>, sqlx::Error> {
    let crashed = row.try_get::<Option<&str>, _>("crashed")?.map(Arc::from);
    let suspect = Suspect { started_before: row.try_get("started_before")?, crashed };
    Ok(row.try_get::<bool, _>("suspect")?.then_some(suspect))
}
