//! What people see of the store, and do to it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cap_adapter::error::StorageError;
use cap_adapter::message::{Headers, Message};
use cap_adapter::monitor::{Among, BoundedCounts, Change, Count, FailedAttempt, Monitor, Query, Row};
use cap_adapter::storage::{Reason, Side, Status};
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::columns::{
    check_text, count_of, message_at, micros, micros_since_1970, reason_of, side_code, side_name,
    status_code, status_of, time_at,
};
use crate::encoding::Encoding;
use crate::error::{Fault, without_nul};
use crate::statements::{List, Statements};
use crate::storage::Postgres;

pub(crate) mod probe;
pub(crate) mod sql;

/// So many messages are changed by one statement.
const CHANGED_TOGETHER: usize = 1000;

impl Monitor for Postgres {
    async fn list(&self, query: &Query) -> Result<Vec<Row>, StorageError> {
        let mut session = self.monitor_session("listing messages").await?;
        session
            .run(async |connection| {
                let rows = listed(connection, &self.statements().list, query, self.encoding()).await?;
                rows.iter().map(|row| shown(query.side, row)).collect()
            })
            .await
    }

    async fn list_ids(&self, query: &Query) -> Result<Vec<i64>, StorageError> {
        let mut session = self.monitor_session("listing the ids of messages").await?;
        session
            .run(async |connection| {
                let rows = listed(connection, &self.statements().list_ids, query, self.encoding()).await?;
                rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
            })
            .await
    }

    async fn get(&self, side: Side, id: i64) -> Result<Option<Row>, StorageError> {
        let mut session = self.monitor_session("reading a message").await?;
        session
            .run(async |connection| {
                let query = sqlx::query(self.statements().get.of(side)).bind(id);
                let row = query.fetch_optional(connection).await?;
                row.map(|row| shown(side, &row)).transpose()
            })
            .await
    }

    async fn find(&self, side: Side, message_id: &str) -> Result<Vec<Row>, StorageError> {
        let mut session = self.monitor_session("looking for a message").await?;
        session.run(|connection| find(connection, self, side, message_id)).await
    }

    async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        let mut session = self.monitor_session("reading the attempts of a message").await?;
        session.run(|connection| attempts(connection, self.statements(), side, id)).await
    }

    async fn rerun(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> Result<Vec<i64>, StorageError> {
        let mut session = self.monitor_session("re-running messages").await?;
        session.run(|connection| rerun(connection, self, side, ids, among, change)).await
    }

    async fn cancel(&self, ids: &[i64], keep: Duration) -> Result<Vec<i64>, StorageError> {
        let mut session = self.monitor_session("cancelling messages").await?;
        session
            .run(async |connection| {
                let query = sqlx::query_scalar(self.statements().cancel.clone()).bind(ids).bind(micros(keep));
                Ok(in_order(ids, query.fetch_all(connection).await?))
            })
            .await
    }

    async fn delete(&self, side: Side, ids: &[i64], among: Among) -> Result<Vec<i64>, StorageError> {
        let mut session = self.monitor_session("deleting messages").await?;
        session.run(|connection| delete(connection, self.statements(), side, ids, among)).await
    }

    async fn bounded_counts(&self, limit: u32) -> Result<Option<BoundedCounts>, StorageError> {
        probe::bounded_counts(self, limit).await
    }

    async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        let mut session = self.monitor_session("counting messages").await?;
        session.run(|connection| counts(connection, self.statements())).await
    }
}

async fn listed(
    connection: &mut PgConnection,
    list: &List,
    query: &Query,
    encoding: &Encoding,
) -> Result<Vec<PgRow>, Fault> {
    // What is rare is looked for among the few state rows, everything else among the messages.
    let by_state = query.reason.is_some()
        || query.error.is_some()
        || query.status.is_some_and(|status| status != Status::Succeeded);
    let statement = if by_state { &list.states } else { &list.messages };
    for text in [&query.topic, &query.group, &query.version].into_iter().flatten() {
        check_text("a text to look for", text, usize::MAX)?;
    }
    // As errors are stored.
    let error = query.error.as_deref().map(without_nul);
    if let Some(error) = &error {
        encoding.learn(connection, std::iter::once(&**error)).await?;
    }
    let ids = query.row_ids();
    let before = if by_state { query.before.unwrap_or(i64::MAX) } else { ids.end };
    let mut rows = sqlx::query(statement.of(query.side))
        .bind(before)
        .bind(&query.topic)
        .bind(&query.group)
        .bind(query.status.map(status_code))
        .bind(query.reason.map(Reason::as_str))
        .bind(error.as_deref().map(|error| encoding.escaped(error)))
        .bind(query.since.map(micros_since_1970))
        .bind(query.until.map(micros_since_1970))
        .bind(i64::try_from(query.limit).unwrap_or(i64::MAX))
        .bind(query.without.map(Reason::as_str))
        .bind(&query.version);
    if !by_state {
        rows = rows.bind(ids.start);
    }
    if_it_fits(rows.fetch_all(connection).await)
}

/// No row has a text that the database cannot hold.
fn if_it_fits(found: Result<Vec<PgRow>, sqlx::Error>) -> Result<Vec<PgRow>, Fault> {
    match found.map_err(Fault::from) {
        Err(fault) if fault.is_outside_encoding() => Ok(Vec::new()),
        found => found,
    }
}

async fn find(
    connection: &mut PgConnection,
    storage: &Postgres,
    side: Side,
    message_id: &str,
) -> Result<Vec<Row>, Fault> {
    if message_id.is_empty() || message_id.contains('\0') {
        return Ok(Vec::new());
    }
    let statement = storage.statements().find.of(side);
    let by = |text: &str| {
        let query = sqlx::query(statement.clone()).bind(text.to_owned());
        match side {
            Side::Outbox => query.bind(text.parse::<i64>().ok().filter(|id| id.to_string() == text)),
            Side::Inbox => query,
        }
    };
    let mut rows = if_it_fits(by(message_id).fetch_all(&mut *connection).await)?;
    // What is parked may have another id in the place of one that does not fit the database's encoding.
    if let (Side::Inbox, Cow::Owned(instead)) = (side, storage.encoding().fitting_id(message_id)) {
        rows.extend(by(&instead).fetch_all(connection).await?);
    }
    rows.iter().map(|row| shown(side, row)).collect()
}

async fn attempts(
    connection: &mut PgConnection,
    statements: &Statements,
    side: Side,
    id: i64,
) -> Result<Vec<FailedAttempt>, Fault> {
    let rows =
        sqlx::query(statements.attempts.clone()).bind(side_code(side)).bind(id).fetch_all(connection).await?;
    let attempt = |row: &PgRow| {
        Ok(FailedAttempt {
            number: count_of(row.try_get("number")?),
            at: time_at(row, "at")?.unwrap_or(SystemTime::UNIX_EPOCH),
            node: row.try_get("node")?,
            error: row.try_get("error")?,
            next: time_at(row, "next_due")?,
        })
    };
    rows.iter().map(attempt).collect()
}

async fn rerun(
    connection: &mut PgConnection,
    storage: &Postgres,
    side: Side,
    ids: &[i64],
    among: Among,
    change: &Change,
) -> Result<Vec<i64>, Fault> {
    let statements = storage.statements();
    let mut transaction = connection.begin().await?;
    // The lock keeps the collector from deleting a message while it gets a state row, and another person from changing
    // it at the same time.
    lock_messages(&mut transaction, statements, side, ids).await?;
    let done: Vec<i64> = sqlx::query_scalar(statements.rerun.of(side))
        .bind(ids)
        .bind(among == Among::All)
        .fetch_all(&mut *transaction)
        .await?;
    if !change.is_empty() {
        for part in done.chunks(CHANGED_TOGETHER) {
            change_messages(&mut transaction, storage, side, part, change).await?;
        }
    }
    if !done.is_empty() {
        sqlx::query("SELECT pg_notify($1, $2)")
            .bind(storage.notification_channel())
            .bind(side_name(side))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(in_order(ids, done))
}

/// Writes changed messages in the place of the old ones. One whose headers cannot be read stays as it is, and is set
/// aside again as soon as it is claimed.
async fn change_messages(
    connection: &mut PgConnection,
    storage: &Postgres,
    side: Side,
    ids: &[i64],
    change: &Change,
) -> Result<(), Fault> {
    let (statements, encoding) = (storage.statements(), storage.encoding());
    let rows = sqlx::query(statements.headers.of(side)).bind(ids).fetch_all(&mut *connection).await?;
    let mut changed: Vec<(i64, String)> = Vec::with_capacity(rows.len());
    for row in &rows {
        // Bodies stay in the database: the old one has no part in the new.
        if let Ok(headers) = Headers::from_json(row.try_get::<&str, _>("headers")?) {
            let message = change.apply(&Message::new(headers, Bytes::new()));
            changed.push((row.try_get("id")?, encoding.headers(message.headers.to_json())));
        }
    }
    let (ids, headers): (Vec<i64>, Vec<String>) = changed.into_iter().unzip();
    sqlx::query(statements.change_messages.of(side))
        .bind(ids)
        .bind(headers)
        .bind(change.body.as_deref())
        .execute(connection)
        .await?;
    Ok(())
}

async fn delete(
    connection: &mut PgConnection,
    statements: &Statements,
    side: Side,
    ids: &[i64],
    among: Among,
) -> Result<Vec<i64>, Fault> {
    let mut transaction = connection.begin().await?;
    lock_messages(&mut transaction, statements, side, ids).await?;
    let done = sqlx::query_scalar(statements.delete.of(side))
        .bind(ids)
        .bind(among == Among::All)
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(in_order(ids, done))
}

async fn lock_messages(
    connection: &mut PgConnection,
    statements: &Statements,
    side: Side,
    ids: &[i64],
) -> Result<(), Fault> {
    sqlx::query(statements.lock_messages.of(side)).bind(ids).execute(connection).await?;
    Ok(())
}

async fn counts(connection: &mut PgConnection, statements: &Statements) -> Result<Vec<Count>, Fault> {
    counts_of(&sqlx::query(statements.counts.clone()).fetch_all(connection).await?)
}

fn counts_of(rows: &[PgRow]) -> Result<Vec<Count>, Fault> {
    let count = |row: &PgRow| {
        let is_inbox = row.try_get::<i32, _>("side")? == i32::from(side_code(Side::Inbox));
        Ok(Count {
            side: if is_inbox { Side::Inbox } else { Side::Outbox },
            group: row.try_get("group_name")?,
            status: status_of(row.try_get("status")?),
            count: u64::try_from(row.try_get::<i64, _>("count")?).unwrap_or(0),
        })
    };
    rows.iter().map(count).collect()
}

fn shown(side: Side, row: &PgRow) -> Result<Row, Fault> {
    let message = match message_at(row)? {
        Ok(message) => message,
        // The body may still be of use; why the headers are not is the row's last error.
        Err(_) => Arc::new(Message::new(Headers::new(), row.try_get::<Vec<u8>, _>("body")?)),
    };
    Ok(Row {
        id: row.try_get("id")?,
        side,
        version: row.try_get("version")?,
        name: row.try_get("name")?,
        group: Arc::from(row.try_get::<&str, _>("group_name")?),
        message,
        status: status_of(row.try_get("status")?),
        reason: reason_of(row.try_get("reason")?),
        attempts: count_of(row.try_get("attempts")?),
        reruns: count_of(row.try_get::<Option<i32>, _>("reruns")?.unwrap_or(0)),
        last_error: row.try_get("last_error")?,
        added: time_at(row, "added")?.unwrap_or(SystemTime::UNIX_EPOCH),
        due: time_at(row, "due")?,
        expires: time_at(row, "expires")?,
        owner: row.try_get("owner")?,
    })
}

/// The ids for which something was done, in the order in which they were asked for.
fn in_order(asked: &[i64], done: Vec<i64>) -> Vec<i64> {
    let mut done: std::collections::HashSet<i64> = done.into_iter().collect();
    asked.iter().copied().filter(|id| done.remove(id)).collect()
}
