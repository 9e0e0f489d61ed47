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
    AND (?2 IS NULL OR m.name IN (?2, ?16))
    AND (?3 IS NULL OR {group} IN (?3, ?17))
    AND (?4 IS NULL OR coalesce((SELECT s.status FROM {states} AS s WHERE s.id = m.id), 4) = ?4)
    AND (?6 IS NULL OR m.added >= ?6)
    AND (?7 IS NULL OR m.added < ?7)
    AND (?8 IS NULL OR (SELECT s.reason FROM {states} AS s WHERE s.id = m.id) IS NOT ?8)
    AND (?9 IS NULL OR m.version = ?9)
    {more}
ORDER BY m.id DESC
LIMIT ?5";

/// The ids of messages that have a state row.
const LIST_STATES: &str = "
SELECT s.id
FROM {states} AS s
WHERE s.id < ?1 AND s.id >= ?10
    AND (?2 IS NULL OR (SELECT m.name FROM {messages} AS m WHERE m.id = s.id) IN (?2, ?16))
    AND (?3 IS NULL OR (SELECT {group} FROM {messages} AS m WHERE m.id = s.id) IN (?3, ?17))
    AND (?4 IS NULL OR s.status = ?4)
    AND (?6 IS NULL OR (SELECT m.added FROM {messages} AS m WHERE m.id = s.id) >= ?6)
    AND (?7 IS NULL OR (SELECT m.added FROM {messages} AS m WHERE m.id = s.id) < ?7)
    AND (?8 IS NULL OR s.reason IS NOT ?8)
    AND (?9 IS NULL OR s.version = ?9)
    AND (?18 IS NULL OR s.reason = ?18)
    AND (?19 IS NULL OR instr(s.last_error, ?19) > 0)
    {more}
ORDER BY s.id DESC
LIMIT ?5";

/// What both kinds of list have: the state as an operator sees it, parts of the headers and of the body, and the node.
const MORE: &str = "AND (?11 IS NULL OR coalesce((
        SELECT CASE
            WHEN x.status = 3 AND x.reason = 'cancelled' THEN 6
            WHEN x.status IN (3, 4) THEN x.status
            WHEN x.owner IS NOT NULL AND x.due > CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000 THEN 5
            ELSE x.status
        END
        FROM {states} AS x WHERE x.id = {id}
    ), 4) = ?11)
    AND (?12 IS NULL OR (SELECT instr(h.headers, ?12) FROM {messages} AS h WHERE h.id = {id}) > 0)
    AND (?13 IS NULL OR (SELECT instr(h.headers, ?13) FROM {messages} AS h WHERE h.id = {id}) > 0)
    AND (?14 IS NULL OR (SELECT instr(h.body, ?14) FROM {messages} AS h WHERE h.id = {id}) > 0)
    AND (?15 IS NULL OR (SELECT x.owner FROM {states} AS x WHERE x.id = {id}) = ?15 OR EXISTS (
        SELECT 1 FROM {prefix}attempts AS a INDEXED BY {prefix}attempts_of
        WHERE a.side = {side} AND a.id = {id} AND a.node = ?15
    ))";

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
            list_messages: templates.sides(&with_more(LIST_MESSAGES, "m.id")),
            list_states: templates.sides(&with_more(LIST_STATES, "s.id")),
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
        let Some(message_id) = &query.message_id else {
            return self.listed_ids(connection, query.side, &ListFilter::new(query)?).await;
        };
        let mut found = self.find(connection, query.side, message_id).await?;
        found.sort_by_key(|row| std::cmp::Reverse(row.id));
        let mut ids = Vec::new();
        for one in found {
            let mut filter = ListFilter::new(query)?;
            filter.only(one.id);
            ids.extend(self.listed_ids(connection, query.side, &filter).await?);
        }
        ids.truncate(query.limit);
        Ok(ids)
    }

    /// The ids of what a filter selects.
    pub(crate) async fn listed_ids(
        &self,
        connection: &mut SqliteConnection,
        side: Side,
        filter: &ListFilter<'_>,
    ) -> Result<Vec<i64>, Fault> {
        let statement = if filter.by_state { &self.list_states } else { &self.list_messages };
        let mut list = sqlx::query_scalar(statement.of(side))
            .bind(filter.before)
            .bind(filter.topic)
            .bind(filter.group)
            .bind(filter.status)
            .bind(filter.limit)
            .bind(filter.since)
            .bind(filter.until)
            .bind(filter.without)
            .bind(filter.version)
            .bind(filter.first)
            .bind(filter.state)
            .bind(filter.correlation.as_deref())
            .bind(filter.header.as_deref())
            .bind(filter.text)
            .bind(filter.node)
            .bind(filter.or_topic)
            .bind(filter.or_group);
        if filter.by_state {
            list = list.bind(filter.reason).bind(filter.error.as_deref());
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
            let (node, error): (String, String) = (row.try_get("node")?, row.try_get("error")?);
            let next = row.try_get::<Option<i64>, _>("next_due")?.map(time_of);
            let (number, at) = (count_of(row.try_get("number")?), time_of(row.try_get("at")?));
            Ok(FailedAttempt::new(number, at, node, error, next))
        };
        rows.iter().map(attempt).collect()
    }
}

/// Puts the further conditions into a list, which go by this id.
fn with_more(template: &str, id: &str) -> String {
    template.replace("{more}", &MORE.replace("{id}", id))
}
