//! Finds out which rows of a batch are stored already, after an answer that was lost.

use cap_adapter::storage::{Side, WriteBatch};
use cap_sql::repeated_write::{Candidates, Repeated, another_message, incoming, outgoing};
use cap_sql::templates::{Sides, Templates};
use sqlx::{Row as _, SqliteConnection};

use crate::database::error::Fault;

/// The message of a row id.
const STORED: &str = "
SELECT m.headers, m.body, {group} AS group_name FROM {messages} AS m WHERE m.id = ?1";

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
        connection: &mut SqliteConnection,
        batch: &WriteBatch,
    ) -> Result<Repeated, Fault> {
        let outgoing = outgoing(batch, |headers| headers)?;
        let incoming = incoming(batch, |headers| headers)?;
        Ok(Repeated::new(
            self.stored_ids(connection, Side::Outbox, &outgoing).await?,
            self.stored_ids(connection, Side::Inbox, &incoming).await?,
        ))
    }

    async fn stored_ids(
        &self,
        connection: &mut SqliteConnection,
        side: Side,
        candidates: &Candidates<'_>,
    ) -> Result<Vec<i64>, Fault> {
        let mut stored = Vec::new();
        for (id, candidate) in candidates {
            let row = sqlx::query(self.stored.of(side)).bind(id).fetch_optional(&mut *connection).await?;
            let Some(row) = row else { continue };
            let is_same = row.try_get::<&str, _>("headers")? == candidate.headers
                && row.try_get::<&[u8], _>("body")? == candidate.body
                && row.try_get::<&str, _>("group_name")? == candidate.group;
            if !is_same {
                return Err(another_message(side, *id).into());
            }
            stored.push(*id);
        }
        Ok(stored)
    }
}
