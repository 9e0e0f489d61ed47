//! Finds out which rows of a batch are stored already, after an answer that was lost.

use cap_adapter::storage::{Side, WriteBatch};
use cap_sql::repeated_write::{Candidates, Repeated, another_message, incoming, outgoing};
use cap_sql::templates::{Sides, Templates};
use sqlx::{PgConnection, Row as _};

use crate::database::error::Fault;
use crate::database::writing::Writing;

/// Of these rows, those that are stored: whether each holds the same message.
const STORED: &str = "
SELECT m.id, m.headers = i.headers AND m.body = i.body AND {group} = i.group_name AS same
FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::text[]) AS i(id, headers, body, group_name)
JOIN {messages} AS m ON m.id = i.id";

/// Finds the rows of a batch that are stored already.
#[derive(Debug)]
pub(crate) struct RepeatedBatch {
    pub(crate) stored: Sides,
}

impl RepeatedBatch {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { stored: templates.sides(STORED) }
    }

    /// Returns the row ids that are in the tables with the very same message. Two messages under one id are refused: one of
    /// them would be lost unnoticed.
    pub(crate) async fn find(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        batch: &WriteBatch,
    ) -> Result<Repeated, Fault> {
        let stored = |headers| writing.encoding.headers(headers);
        let outgoing = outgoing(batch, stored)?;
        let incoming = incoming(batch, stored)?;
        Ok(Repeated::new(
            self.stored_ids(connection, Side::Outbox, &outgoing).await?,
            self.stored_ids(connection, Side::Inbox, &incoming).await?,
        ))
    }

    async fn stored_ids(
        &self,
        connection: &mut PgConnection,
        side: Side,
        candidates: &Candidates<'_>,
    ) -> Result<Vec<i64>, Fault> {
        let rows = sqlx::query(self.stored.of(side))
            .bind(candidates.keys().copied().collect::<Vec<_>>())
            .bind(candidates.values().map(|candidate| candidate.headers.as_str()).collect::<Vec<_>>())
            .bind(candidates.values().map(|candidate| candidate.body).collect::<Vec<_>>())
            .bind(candidates.values().map(|candidate| candidate.group).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
        let mut stored = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.try_get("id")?;
            if !row.try_get::<bool, _>("same")? {
                return Err(another_message(side, id).into());
            }
            stored.push(id);
        }
        Ok(stored)
    }
}
