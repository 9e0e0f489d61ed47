//! What people see of the store, and do to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cap_adapter::error::StorageError;
use cap_adapter::message::{Headers, Message};
use cap_adapter::monitor::{Among, BoundedCounts, Change, Count, FailedAttempt, Monitor, Query, Row};
use cap_adapter::storage::{Reason, Side, Status};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use crate::columns::{
    check_text, count_of, message_at, micros, micros_since_1970, reason_of, side_code, status_code,
    status_of, time_of,
};
use crate::error::{Fault, without_nul};
use crate::expiry;
use crate::session::begin;
use crate::statements::Statements;
use crate::storage::Sqlite;
use crate::work::Work;

pub(crate) mod sql;

impl Monitor for Sqlite {
    async fn list(&self, query: &Query) -> Result<Vec<Row>, StorageError> {
        let mut session = self.reader("listing messages").await?;
        session.run(|connection| list(connection, self.statements(), query)).await
    }

    async fn list_ids(&self, query: &Query) -> Result<Vec<i64>, StorageError> {
        let mut session = self.reader("listing the ids of messages").await?;
        session.run(|connection| list_ids(connection, self.statements(), query)).await
    }

    async fn get(&self, side: Side, id: i64) -> Result<Option<Row>, StorageError> {
        let mut session = self.reader("reading a message").await?;
        session.run(|connection| get(connection, self.statements(), side, id)).await
    }

    async fn find(&self, side: Side, message_id: &str) -> Result<Vec<Row>, StorageError> {
        if message_id.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.reader("looking for a message").await?;
        session
            .run(async |connection| {
                let query = sqlx::query(self.statements().find.of(side)).bind(message_id);
                query.fetch_all(connection).await?.iter().map(|row| shown(side, row)).collect()
            })
            .await
    }

    async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        let mut session = self.reader("reading the attempts of a message").await?;
        session.run(|connection| attempts(connection, self.statements(), side, id)).await
    }

    async fn rerun(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> Result<Vec<i64>, StorageError> {
        let mut session = self.writer("re-running messages").await?;
        let done =
            session.run(|connection| rerun(connection, self.statements(), side, ids, among, change)).await?;
        if !done.is_empty() {
            self.file().wake(side);
        }
        Ok(done)
    }

    async fn cancel(&self, ids: &[i64], keep: Duration) -> Result<Vec<i64>, StorageError> {
        let mut session = self.writer("cancelling messages").await?;
        session.run(|connection| cancel(connection, self.statements(), ids, keep)).await
    }

    async fn delete(&self, side: Side, ids: &[i64], among: Among) -> Result<Vec<i64>, StorageError> {
        let mut session = self.writer("deleting messages").await?;
        session.run(|connection| delete(connection, self.statements(), side, ids, among)).await
    }

    async fn bounded_counts(&self, limit: u32) -> Result<Option<BoundedCounts>, StorageError> {
        let mut session = self.reader("counting messages for health").await?;
        session.run(|connection| bounded_counts(connection, self.statements(), limit)).await.map(Some)
    }

    async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        let mut session = self.reader("counting messages").await?;
        session.run(|connection| counts(connection, self.statements())).await
    }
}

async fn list(
    connection: &mut SqliteConnection,
    statements: &Statements,
    query: &Query,
) -> Result<Vec<Row>, Fault> {
    let mut rows = Vec::new();
    for id in list_ids(connection, statements, query).await? {
        rows.extend(get(connection, statements, query.side, id).await?);
    }
    Ok(rows)
}

async fn list_ids(
    connection: &mut SqliteConnection,
    statements: &Statements,
    query: &Query,
) -> Result<Vec<i64>, Fault> {
    for text in [&query.topic, &query.group, &query.version].into_iter().flatten() {
        check_text("a text to look for", text, usize::MAX)?;
    }
    // What is rare is looked for among the few state rows, everything else among the messages.
    let by_state = query.reason.is_some()
        || query.error.is_some()
        || query.status.is_some_and(|status| status != Status::Succeeded);
    let statement = if by_state { &statements.list_states } else { &statements.list_messages };
    let ids = query.row_ids();
    let before = if by_state { query.before.unwrap_or(i64::MAX) } else { ids.end };
    let mut list = sqlx::query_scalar(statement.of(query.side))
        .bind(before)
        .bind(query.topic.as_deref())
        .bind(query.group.as_deref())
        .bind(query.status.map(status_code))
        .bind(i64::try_from(query.limit).unwrap_or(i64::MAX))
        .bind(query.since.map(micros_since_1970))
        .bind(query.until.map(micros_since_1970))
        .bind(query.without.map(Reason::as_str))
        .bind(query.version.as_deref());
    if by_state {
        let reason = query.reason.map(Reason::as_str);
        list = list.bind(reason).bind(query.error.as_deref().map(without_nul));
    } else {
        list = list.bind(ids.start);
    }
    Ok(list.fetch_all(connection).await?)
}

async fn get(
    connection: &mut SqliteConnection,
    statements: &Statements,
    side: Side,
    id: i64,
) -> Result<Option<Row>, Fault> {
    let row = sqlx::query(statements.get.of(side)).bind(id).fetch_optional(connection).await?;
    row.map(|row| shown(side, &row)).transpose()
}

async fn attempts(
    connection: &mut SqliteConnection,
    statements: &Statements,
    side: Side,
    id: i64,
) -> Result<Vec<FailedAttempt>, Fault> {
    let rows =
        sqlx::query(statements.attempts.clone()).bind(side_code(side)).bind(id).fetch_all(connection).await?;
    let attempt = |row: &SqliteRow| {
        Ok(FailedAttempt {
            number: count_of(row.try_get("number")?),
            at: time_of(row.try_get("at")?),
            node: row.try_get("node")?,
            error: row.try_get("error")?,
            next: row.try_get::<Option<i64>, _>("next_due")?.map(time_of),
        })
    };
    rows.iter().map(attempt).collect()
}

async fn rerun(
    connection: &mut SqliteConnection,
    statements: &Statements,
    side: Side,
    ids: &[i64],
    among: Among,
    change: &Change,
) -> Result<Vec<i64>, Fault> {
    let (mut transaction, now) = begin(connection).await?;
    let mut done = Vec::new();
    for id in each(ids) {
        let rerun = sqlx::query(statements.rerun.of(side)).bind(id).bind(now).bind(among == Among::All);
        if rerun.execute(&mut *transaction).await?.rows_affected() > 0 {
            change_message(&mut transaction, statements, side, id, change).await?;
            done.push(id);
        }
    }
    if !done.is_empty() {
        let mut work = Work::default();
        work.add(side);
        work.announce(&mut transaction, statements).await?;
    }
    transaction.commit().await?;
    Ok(done)
}

/// Writes a changed message in the place of the old one. One whose headers cannot be read stays as it is, and is set
/// aside again as soon as it is claimed.
async fn change_message(
    connection: &mut SqliteConnection,
    statements: &Statements,
    side: Side,
    id: i64,
    change: &Change,
) -> Result<(), Fault> {
    if change.is_empty() {
        return Ok(());
    }
    let headers: String =
        sqlx::query_scalar(statements.headers.of(side)).bind(id).fetch_one(&mut *connection).await?;
    let Ok(headers) = Headers::from_json(&headers) else { return Ok(()) };
    // The old body has no part in the new one, and need not be read.
    let message = change.apply(&Message::new(headers, Bytes::new()));
    sqlx::query(statements.change_message.of(side))
        .bind(id)
        .bind(message.headers.to_json())
        .bind(change.body.as_deref())
        .execute(connection)
        .await?;
    Ok(())
}

async fn cancel(
    connection: &mut SqliteConnection,
    statements: &Statements,
    ids: &[i64],
    keep: Duration,
) -> Result<Vec<i64>, Fault> {
    let (mut transaction, now) = begin(connection).await?;
    let mut done = Vec::new();
    for id in each(ids) {
        let cancel = sqlx::query(statements.cancel.clone()).bind(id).bind(now + micros(keep));
        if cancel.execute(&mut *transaction).await?.rows_affected() > 0 {
            done.push(id);
        }
    }
    transaction.commit().await?;
    Ok(done)
}

async fn delete(
    connection: &mut SqliteConnection,
    statements: &Statements,
    side: Side,
    ids: &[i64],
    among: Among,
) -> Result<Vec<i64>, Fault> {
    let (mut transaction, now) = begin(connection).await?;
    let mut done = Vec::new();
    for id in each(ids) {
        let idle = sqlx::query(statements.idle.of(side)).bind(id).bind(now).bind(among == Among::All);
        if idle.fetch_optional(&mut *transaction).await?.is_some() {
            done.push(id);
        }
    }
    expiry::delete(&mut transaction, statements, side, &done).await?;
    transaction.commit().await?;
    Ok(done)
}

async fn counts(connection: &mut SqliteConnection, statements: &Statements) -> Result<Vec<Count>, Fault> {
    counts_of(&sqlx::query(statements.counts.clone()).fetch_all(connection).await?)
}

async fn bounded_counts(
    connection: &mut SqliteConnection,
    statements: &Statements,
    limit: u32,
) -> Result<BoundedCounts, Fault> {
    let mut counted = BoundedCounts::default();
    for side in [Side::Outbox, Side::Inbox] {
        let mut rows =
            sqlx::query(statements.count_few.of(side)).bind(limit).fetch_all(&mut *connection).await?;
        let mut seen = 0;
        for row in &rows {
            seen += row.try_get::<i64, _>("seen")?;
        }
        if seen > i64::from(limit) {
            counted.is_capped = true;
            rows =
                sqlx::query(statements.count_many.of(side)).bind(limit).fetch_all(&mut *connection).await?;
        }
        counted.counts.extend(counts_of(&rows)?.into_iter().filter(|count| count.count > 0));
    }
    Ok(counted)
}

fn counts_of(rows: &[SqliteRow]) -> Result<Vec<Count>, Fault> {
    let count = |row: &SqliteRow| {
        let is_inbox = row.try_get::<i64, _>("side")? == side_code(Side::Inbox);
        Ok(Count {
            side: if is_inbox { Side::Inbox } else { Side::Outbox },
            group: row.try_get("group_name")?,
            status: status_of(row.try_get("status")?),
            count: u64::try_from(row.try_get::<i64, _>("count")?).unwrap_or(0),
        })
    };
    rows.iter().map(count).collect()
}

fn shown(side: Side, row: &SqliteRow) -> Result<Row, Fault> {
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
        reruns: count_of(row.try_get::<Option<i64>, _>("reruns")?.unwrap_or(0)),
        last_error: row.try_get("last_error")?,
        added: time_of(row.try_get("added")?),
        due: row.try_get::<Option<i64>, _>("due")?.map(time_of),
        expires: row.try_get::<Option<i64>, _>("expires")?.map(time_of),
        owner: row.try_get("owner")?,
    })
}

/// The ids in the order in which they were asked for, each once.
fn each(asked: &[i64]) -> impl Iterator<Item = i64> {
    let mut seen = std::collections::HashSet::new();
    asked.iter().copied().filter(move |id| seen.insert(*id))
}
