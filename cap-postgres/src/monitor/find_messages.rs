//! Finds messages, and the attempts of one.

use std::borrow::Cow;
use std::time::SystemTime;

use cap_adapter::monitor::{FailedAttempt, Query, Row};
use cap_adapter::storage::Side;
use cap_sql::columns::{count_of, side_code};
use cap_sql::list_filter::ListFilter;
use cap_sql::templates::{Sides, Templates};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _, SqlStr};

use crate::database::columns::time_at;
use crate::database::encoding::Encoding;
use crate::database::error::Fault;
use crate::monitor::message_row::{shown, with_columns, with_ids};

const LIST_MESSAGES: &str = "
SELECT {columns}
FROM {messages} AS m
LEFT JOIN {states} AS s ON s.id = m.id
WHERE m.id < $1 AND m.id >= $12
    AND ($2::text IS NULL OR m.name IN ($2, $18))
    AND ($3::text IS NULL OR {group} IN ($3, $19))
    AND ($4::smallint IS NULL OR coalesce(s.status, 4) = $4)
    AND ($5::text IS NULL OR s.reason = $5)
    AND ($6::text IS NULL OR strpos(s.last_error, $6) > 0)
    AND ($7::bigint IS NULL OR m.added >= timestamptz 'epoch' + $7 * interval '1 microsecond')
    AND ($8::bigint IS NULL OR m.added < timestamptz 'epoch' + $8 * interval '1 microsecond')
    AND ($10::text IS NULL OR s.reason IS DISTINCT FROM $10)
    AND ($11::text IS NULL OR m.version = $11)
    {more}
ORDER BY m.id DESC
LIMIT $9";

const LIST_STATES: &str = "
SELECT {columns}
FROM {states} AS s
JOIN {messages} AS m ON m.id = s.id
WHERE s.id < $1 AND s.id >= $12
    AND ($2::text IS NULL OR m.name IN ($2, $18))
    AND ($3::text IS NULL OR {group} IN ($3, $19))
    AND ($4::smallint IS NULL OR s.status = $4)
    AND ($5::text IS NULL OR s.reason = $5)
    AND ($6::text IS NULL OR strpos(s.last_error, $6) > 0)
    AND ($7::bigint IS NULL OR m.added >= timestamptz 'epoch' + $7 * interval '1 microsecond')
    AND ($8::bigint IS NULL OR m.added < timestamptz 'epoch' + $8 * interval '1 microsecond')
    AND ($10::text IS NULL OR s.reason IS DISTINCT FROM $10)
    AND ($11::text IS NULL OR s.version = $11)
    {more}
ORDER BY s.id DESC
LIMIT $9";

/// What both kinds of list have: the state as an operator sees it, parts of the headers and of the body, and the node.
const MORE: &str = "AND ($13::smallint IS NULL OR $13 = CASE
        WHEN s.id IS NULL OR s.status = 4 THEN 4
        WHEN s.status = 3 AND s.reason = 'cancelled' THEN 6
        WHEN s.status = 3 THEN 3
        WHEN s.owner IS NOT NULL AND s.due > statement_timestamp() THEN 5
        ELSE s.status
    END)
    AND ($14::text IS NULL OR strpos(m.headers, $14) > 0)
    AND ($15::text IS NULL OR strpos(m.headers, $15) > 0)
    AND ($16::bytea IS NULL OR position($16 IN m.body) > 0)
    AND ($17::text IS NULL OR s.owner = $17 OR (
        SELECT true FROM {schema}.attempts AS a
        WHERE a.side = {side} AND a.id = m.id AND a.node = $17 LIMIT 1
    ))";

const GET: &str = "
SELECT {columns}
FROM {messages} AS m
LEFT JOIN {states} AS s ON s.id = m.id
WHERE m.id = $1";

// Without an order: sessions of the bus avoid sorts, and would read the whole table by its key instead.
const FIND_OUTBOX: &str = "
SELECT {columns}
FROM (
    SELECT o.id FROM {messages} AS o WHERE o.message_id = $1
    UNION ALL
    SELECT o.id FROM {messages} AS o WHERE o.id = $2 AND o.message_id IS NULL
) AS f
JOIN {messages} AS m ON m.id = f.id
LEFT JOIN {states} AS s ON s.id = m.id";

const FIND_INBOX: &str = "
SELECT {columns}
FROM {messages} AS m
LEFT JOIN {states} AS s ON s.id = m.id
WHERE m.message_id = $1";

const ATTEMPTS: &str = "SELECT number, at, node, error, next_due FROM {schema}.attempts WHERE side = $1 AND id = $2 ORDER BY number, at";

/// The two ways to list: through the messages, and through the few state rows.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) messages: Sides,
    pub(crate) states: Sides,
}

impl List {
    fn prepare(templates: &Templates, columns: impl Fn(&str) -> String) -> Self {
        Self {
            messages: templates.sides(&columns(&LIST_MESSAGES.replace("{more}", MORE))),
            states: templates.sides(&columns(&LIST_STATES.replace("{more}", MORE))),
        }
    }
}

/// Finds messages.
#[derive(Debug)]
pub(crate) struct FindMessages {
    pub(crate) list: List,
    pub(crate) list_ids: List,
    pub(crate) get: Sides,
    pub(crate) find: Sides,
    pub(crate) attempts: SqlStr,
}

impl FindMessages {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            list: List::prepare(templates, with_columns),
            list_ids: List::prepare(templates, with_ids),
            get: templates.sides(&with_columns(GET)),
            find: Sides {
                outbox: templates.side(&with_columns(FIND_OUTBOX), Side::Outbox),
                inbox: templates.side(&with_columns(FIND_INBOX), Side::Inbox),
            },
            attempts: templates.one(ATTEMPTS),
        }
    }

    pub(crate) async fn list(
        &self,
        connection: &mut PgConnection,
        encoding: &Encoding,
        query: &Query,
    ) -> Result<Vec<Row>, Fault> {
        let rows = self.listed(connection, encoding, query, &self.list).await?;
        rows.iter().map(|row| shown(query.side, row)).collect()
    }

    pub(crate) async fn list_ids(
        &self,
        connection: &mut PgConnection,
        encoding: &Encoding,
        query: &Query,
    ) -> Result<Vec<i64>, Fault> {
        let rows = self.listed(connection, encoding, query, &self.list_ids).await?;
        rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
    }

    /// Lists through the messages or the state rows; a message id is looked up in its index first.
    async fn listed(
        &self,
        connection: &mut PgConnection,
        encoding: &Encoding,
        query: &Query,
        list: &List,
    ) -> Result<Vec<PgRow>, Fault> {
        let Some(message_id) = &query.message_id else {
            return listed(connection, list, query.side, &ListFilter::new(query)?, encoding).await;
        };
        let mut found = self.find(connection, encoding, query.side, message_id).await?;
        found.sort_by_key(|row| std::cmp::Reverse(row.id));
        let mut rows = Vec::new();
        for one in found {
            let mut filter = ListFilter::new(query)?;
            filter.only(one.id);
            rows.extend(listed(connection, list, query.side, &filter, encoding).await?);
        }
        rows.truncate(query.limit);
        Ok(rows)
    }

    pub(crate) async fn get(
        &self,
        connection: &mut PgConnection,
        side: Side,
        id: i64,
    ) -> Result<Option<Row>, Fault> {
        let row = sqlx::query(self.get.of(side)).bind(id).fetch_optional(connection).await?;
        row.map(|row| shown(side, &row)).transpose()
    }

    /// Finds the messages with a message id.
    pub(crate) async fn find(
        &self,
        connection: &mut PgConnection,
        encoding: &Encoding,
        side: Side,
        message_id: &str,
    ) -> Result<Vec<Row>, Fault> {
        if message_id.is_empty() || message_id.contains('\0') {
            return Ok(Vec::new());
        }
        let statement = self.find.of(side);
        let by = |text: &str| {
            let query = sqlx::query(statement.clone()).bind(text.to_owned());
            match side {
                Side::Outbox => query.bind(text.parse::<i64>().ok().filter(|id| id.to_string() == text)),
                Side::Inbox => query,
            }
        };
        let mut rows = if_it_fits(by(message_id).fetch_all(&mut *connection).await)?;
        // What is parked may have another id in the place of one that does not fit the database's encoding.
        if let (Side::Inbox, Cow::Owned(instead)) = (side, encoding.fitting_id(message_id)) {
            rows.extend(by(&instead).fetch_all(connection).await?);
        }
        let mut found = rows.iter().map(|row| shown(side, row)).collect::<Result<Vec<_>, _>>()?;
        found.sort_unstable_by_key(|row| row.id);
        Ok(found)
    }

    /// Reads the recorded attempts of a message.
    pub(crate) async fn attempts(
        &self,
        connection: &mut PgConnection,
        side: Side,
        id: i64,
    ) -> Result<Vec<FailedAttempt>, Fault> {
        let rows =
            sqlx::query(self.attempts.clone()).bind(side_code(side)).bind(id).fetch_all(connection).await?;
        let attempt = |row: &PgRow| {
            let at = time_at(row, "at")?.unwrap_or(SystemTime::UNIX_EPOCH);
            let (node, error): (String, String) = (row.try_get("node")?, row.try_get("error")?);
            let number = count_of(row.try_get("number")?);
            Ok(FailedAttempt::new(number, at, node, error, time_at(row, "next_due")?))
        };
        rows.iter().map(attempt).collect()
    }
}

/// Lists what a filter selects.
pub(crate) async fn listed(
    connection: &mut PgConnection,
    list: &List,
    side: Side,
    filter: &ListFilter<'_>,
    encoding: &Encoding,
) -> Result<Vec<PgRow>, Fault> {
    let statement = if filter.by_state { &list.states } else { &list.messages };
    let error = filter.error.as_deref();
    if let Some(error) = error {
        encoding.learn(connection, std::iter::once(error)).await?;
    }
    let part = |headers: &Option<String>| headers.clone().map(|part| encoding.headers(part));
    let rows = sqlx::query(statement.of(side))
        .bind(filter.before)
        .bind(filter.topic)
        .bind(filter.group)
        .bind(filter.status)
        .bind(filter.reason)
        .bind(error.map(|error| encoding.escaped(error)))
        .bind(filter.since)
        .bind(filter.until)
        .bind(filter.limit)
        .bind(filter.without)
        .bind(filter.version)
        .bind(filter.first)
        .bind(filter.state)
        .bind(part(&filter.correlation))
        .bind(part(&filter.header))
        .bind(filter.text)
        .bind(filter.node)
        .bind(filter.or_topic)
        .bind(filter.or_group);
    if_it_fits(rows.fetch_all(connection).await)
}

/// No row has a text that the encoding of the database lacks.
fn if_it_fits(found: Result<Vec<PgRow>, sqlx::Error>) -> Result<Vec<PgRow>, Fault> {
    match found.map_err(Fault::from) {
        Err(fault) if fault.is_outside_encoding() => Ok(Vec::new()),
        found => found,
    }
}
