//! Finds messages, and the attempts of one.

use cap_adapter::monitor::{FailedAttempt, Query, Row};
use cap_adapter::storage::Side;
use cap_sql::columns::{count_of, side_code, time_of};
use cap_sql::list_filter::ListFilter;
use cap_sql::templates::{Sides, Templates};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqlStr, SqliteConnection};

use crate::database::error::Fault;
use crate::monitor::message_row::{shown, with_columns};

/// The ids of messages that have succeeded, or in whatever state.
const LIST_MESSAGES: &str = "
SELECT m.id
FROM {messages} AS m
WHERE m.id < ?1 AND m.id >= ?10
    AND (?2 IS NULL OR m.name = ?2)
    AND (?3 IS NULL OR {group} = ?3)
    AND (?4 IS NULL OR coalesce((SELECT s.status FROM {states} AS s WHERE s.id = m.id), 4) = ?4)
    AND (?6 IS NULL OR m.added >= ?6)
    AND (?7 IS NULL OR m.added < ?7)
    AND (?8 IS NULL OR (SELECT s.reason FROM {states} AS s WHERE s.id = m.id) IS NOT ?8)
    AND (?9 IS NULL OR m.version = ?9)
ORDER BY m.id DESC
LIMIT ?5";

/// The ids of messages that have a state row.
const LIST_STATES: &str = "
SELECT s.id
FROM {states} AS s
WHERE s.id < ?1
    AND (?2 IS NULL OR (SELECT m.name FROM {messages} AS m WHERE m.id = s.id) = ?2)
    AND (?3 IS NULL OR (SELECT {group} FROM {messages} AS m WHERE m.id = s.id) = ?3)
    AND (?4 IS NULL OR s.status = ?4)
    AND (?6 IS NULL OR (SELECT m.added FROM {messages} AS m WHERE m.id = s.id) >= ?6)
    AND (?7 IS NULL OR (SELECT m.added FROM {messages} AS m WHERE m.id = s.id) < ?7)
    AND (?8 IS NULL OR s.reason IS NOT ?8)
    AND (?9 IS NULL OR s.version = ?9)
    AND (?10 IS NULL OR s.reason = ?10)
    AND (?11 IS NULL OR instr(s.last_error, ?11) > 0)
ORDER BY s.id DESC
LIMIT ?5";

const GET: &str = "SELECT {columns} FROM {messages} AS m WHERE m.id = ?1";

const FIND: &str = "
SELECT {columns}
FROM {messages} AS m INDEXED BY {messages}_message_id
WHERE m.message_id = ?1
ORDER BY m.id";

const ATTEMPTS: &str = "
SELECT number, at, node, error, next_due FROM {prefix}attempts INDEXED BY {prefix}attempts_of
WHERE side = ?1 AND id = ?2 ORDER BY number, at";

/// Finds messages.
#[derive(Debug)]
pub(crate) struct FindMessages {
    list_messages: Sides,
    list_states: Sides,
    pub(crate) get: Sides,
    pub(crate) find: Sides,
    pub(crate) attempts: SqlStr,
}

impl FindMessages {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            list_messages: templates.sides(LIST_MESSAGES),
            list_states: templates.sides(LIST_STATES),
            get: templates.sides(&with_columns(GET)),
            find: templates.sides(&with_columns(FIND)),
            attempts: templates.one(ATTEMPTS),
        }
    }

    pub(crate) async fn list(
        &self,
        connection: &mut SqliteConnection,
        query: &Query,
    ) -> Result<Vec<Row>, Fault> {
        let mut rows = Vec::new();
        for id in self.list_ids(connection, query).await? {
            rows.extend(self.get(connection, query.side, id).await?);
        }
        Ok(rows)
    }

    pub(crate) async fn list_ids(
        &self,
        connection: &mut SqliteConnection,
        query: &Query,
    ) -> Result<Vec<i64>, Fault> {
        let filter = ListFilter::new(query)?;
        let statement = if filter.by_state { &self.list_states } else { &self.list_messages };
        let mut list = sqlx::query_scalar(statement.of(query.side))
            .bind(filter.before)
            .bind(filter.topic)
            .bind(filter.group)
            .bind(filter.status)
            .bind(filter.limit)
            .bind(filter.since)
            .bind(filter.until)
            .bind(filter.without)
            .bind(filter.version);
        if filter.by_state {
            list = list.bind(filter.reason).bind(filter.error.as_deref());
        } else {
            list = list.bind(filter.first);
        }
        Ok(list.fetch_all(connection).await?)
    }

    pub(crate) async fn get(
        &self,
        connection: &mut SqliteConnection,
        side: Side,
        id: i64,
    ) -> Result<Option<Row>, Fault> {
        let row = sqlx::query(self.get.of(side)).bind(id).fetch_optional(connection).await?;
        row.map(|row| shown(side, &row)).transpose()
    }

    /// Finds the messages with a message id.
    pub(crate) async fn find(
        &self,
        connection: &mut SqliteConnection,
        side: Side,
        message_id: &str,
    ) -> Result<Vec<Row>, Fault> {
        let rows = sqlx::query(self.find.of(side)).bind(message_id).fetch_all(connection).await?;
        rows.iter().map(|row| shown(side, row)).collect()
    }

    /// Reads the recorded attempts of a message.
    pub(crate) async fn attempts(
        &self,
        connection: &mut SqliteConnection,
        side: Side,
        id: i64,
    ) -> Result<Vec<FailedAttempt>, Fault> {
        let rows =
            sqlx::query(self.attempts.clone()).bind(side_code(side)).bind(id).fetch_all(connection).await?;
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
}
