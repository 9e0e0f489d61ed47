//! Inserts one received message, as is usual while there is little to do: a simpler statement than that for many, which takes
//! half of its time.

use cap_adapter::storage::{Digest, Entry, NewIncoming, Stored};
use cap_sql::state_row::FirstState;
use cap_sql::templates::Templates;
use sqlx::types::time::OffsetDateTime;
use sqlx::{PgConnection, Row as _, SqlStr};

use crate::database::driver_buffers::arguments;
use crate::database::error::Fault;
use crate::database::writing::Writing;

/// For one row what the statement for many is for many.
const INSERT_ONE: &str = "
WITH inserted AS (
    INSERT INTO {schema}.inbox (id, version, name, group_name, message_id, headers, body, digest, added)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, statement_timestamp())
    ON CONFLICT (message_id, group_name) DO NOTHING
    RETURNING id
), stated AS (
    INSERT INTO {schema}.inbox_state (id, version, group_name, status, epoch, due, owner)
    SELECT i.id, $2, $4, $9, 1, statement_timestamp() + $10::bigint * interval '1 microsecond', $11
    FROM inserted AS i
)
SELECT count(*) AS new, statement_timestamp() AS added FROM inserted";

/// Inserts one message that this node leases.
#[derive(Debug)]
pub(crate) struct InsertOneIncoming {
    pub(crate) statement: SqlStr,
}

impl InsertOneIncoming {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { statement: templates.one(INSERT_ONE) }
    }

    /// Whether this message can be inserted so. One that is parked has more columns, and one that is not leased is announced.
    pub(crate) fn takes(new: &NewIncoming) -> bool {
        matches!(new.entry, Entry::Scheduled { held: true })
    }

    /// Inserts a message that [can be](Self::takes), whose parts were checked. Returns whether it is new, and the time that the
    /// row has.
    pub(crate) async fn insert(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        new: &NewIncoming,
    ) -> Result<(Vec<Stored>, OffsetDateTime), Fault> {
        let Writing { owner, encoding, prepared, .. } = writing;
        let state = FirstState::of_incoming(&new.entry, owner);
        let row = sqlx::query_with(self.statement.clone(), arguments(new.message.size()))
            .persistent(prepared)
            .bind(new.id)
            .bind(&*owner.version)
            .bind(new.message.name().unwrap_or_default())
            .bind(&*new.group)
            .bind(new.stored_message_id())
            .bind(encoding.headers(new.message.headers.to_json()))
            .bind(&*new.message.body)
            .bind(new.identity.digest.as_ref().map(Digest::as_bytes))
            .bind(state.status)
            .bind(state.wait)
            .bind(&*owner.node)
            .fetch_one(connection)
            .await?;
        let stored = if row.try_get::<i64, _>("new")? == 1 { Stored::New } else { Stored::Duplicate };
        Ok((vec![stored], row.try_get("added")?))
    }
}
