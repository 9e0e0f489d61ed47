//! Inserts received messages: one statement for any number of them.

use std::borrow::Cow;

use cap_adapter::storage::{Digest, Entry, NewIncoming, Stored};
use cap_sql::checks::{check_group, check_message, check_owner};
use cap_sql::state_row::FirstState;
use cap_sql::templates::Templates;
use sqlx::types::time::OffsetDateTime;
use sqlx::{PgConnection, Row as _, SqlStr};

use crate::database::driver_buffers::arguments;
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::insert_one_incoming::InsertOneIncoming;
use crate::write::insert_outgoing::report;

// With a time it is that of an earlier statement, whose rows these belong to.
const INSERT: &str = "
WITH inserted AS (
    INSERT INTO {schema}.inbox (id, version, name, group_name, message_id, headers, body, digest, added)
    SELECT i.id, $2, i.name, i.group_name, i.message_id, i.headers, i.body, i.digest, coalesce($18::timestamptz, statement_timestamp())
    FROM unnest($1::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $17::bytea[])
        AS i(id, name, group_name, message_id, headers, body, digest)
    ON CONFLICT (message_id, group_name) DO NOTHING
    RETURNING id
), stated AS (
    INSERT INTO {schema}.inbox_state
        (id, version, group_name, status, epoch, due, owner, reason, last_error, expires)
    SELECT i.id, $2, s.group_name, s.status, s.held::integer,
        coalesce($18::timestamptz, statement_timestamp()) + s.wait * interval '1 microsecond', CASE WHEN s.held THEN $13 END,
        s.reason, s.error, coalesce($18::timestamptz, statement_timestamp()) + s.keep * interval '1 microsecond'
    FROM inserted AS i
    FULL JOIN unnest($1::bigint[], $4::text[], $8::smallint[], $9::boolean[], $10::bigint[],
        $11::text[], $12::text[], $14::bigint[]) AS s(id, group_name, status, held, wait, reason, error, keep)
        ON s.id = i.id
    WHERE coalesce(i.id IS NOT NULL, false)
)
SELECT coalesce(array_agg(id), '{}') AS ids, coalesce($18::timestamptz, statement_timestamp()) AS added,
    CASE WHEN $15 THEN pg_notify($16, 'inbox')::text END FROM inserted";

/// Inserts received messages.
#[derive(Debug)]
pub(crate) struct InsertIncoming {
    pub(crate) insert: SqlStr,
    pub(crate) one: InsertOneIncoming,
}

impl InsertIncoming {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { insert: templates.one(INSERT), one: InsertOneIncoming::prepare(templates) }
    }

    /// Inserts messages, and returns for each whether it is new; one whose id is taken counts as a duplicate. The rows have the
    /// given time, or else that of the statement, which is returned.
    pub(crate) async fn insert(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        rows: &[&NewIncoming],
        added: Option<OffsetDateTime>,
    ) -> Result<(Vec<Stored>, OffsetDateTime), Fault> {
        let Writing { owner, channel, encoding, prepared, .. } = writing;
        check_owner(owner)?;
        for new in rows {
            check_message(new.id, &new.message)?;
            check_group(new.id, &new.group)?;
        }
        if let ([new], None) = (rows, added)
            && InsertOneIncoming::takes(new)
        {
            return self.one.insert(connection, writing, new).await;
        }
        let mut ordered = rows.to_vec();
        // All writers insert in the order of the unique key, so that no two wait for each other.
        ordered.sort_by_cached_key(|new| (new.stored_message_id(), &*new.group));
        let ids: Vec<i64> = ordered.iter().map(|new| new.id).collect();
        // What is parked has to be stored, if need be under another name and id: its headers still have them. What could be
        // handled is refused instead, so that it comes back to be parked.
        let is_parked = |new: &NewIncoming| matches!(new.entry, Entry::Parked { .. });
        let names: Vec<Cow<'_, str>> = ordered
            .iter()
            .map(|new| {
                let name = new.message.name().unwrap_or_default();
                if is_parked(new) { encoding.fitting(name) } else { Cow::Borrowed(name) }
            })
            .collect();
        let groups: Vec<&str> = ordered.iter().map(|new| &*new.group).collect();
        let message_ids: Vec<Option<Cow<'_, str>>> = ordered
            .iter()
            .map(|new| {
                let id = new.stored_message_id()?;
                Some(if is_parked(new) { encoding.fitting_id(&id).into_owned().into() } else { id })
            })
            .collect();
        let headers: Vec<String> =
            ordered.iter().map(|new| encoding.headers(new.message.headers.to_json())).collect();
        let bodies: Vec<&[u8]> = ordered.iter().map(|new| &*new.message.body).collect();
        let digests: Vec<Option<&[u8]>> =
            ordered.iter().map(|new| new.identity.digest.as_ref().map(Digest::as_bytes)).collect();
        let states: Vec<FirstState<'_>> =
            ordered.iter().map(|new| FirstState::of_incoming(&new.entry, owner)).collect();
        let leaves_work = states.iter().any(FirstState::leaves_work);
        let size = ordered.iter().map(|new| new.message.size()).sum();
        let row = sqlx::query_with(self.insert.clone(), arguments(size))
            .persistent(prepared)
            .bind(&ids)
            .bind(&*owner.version)
            .bind(&names)
            .bind(&groups)
            .bind(&message_ids)
            .bind(&headers)
            .bind(&bodies)
            .bind(states.iter().map(|state| state.status).collect::<Vec<_>>())
            .bind(states.iter().map(|state| state.leased).collect::<Vec<_>>())
            .bind(states.iter().map(|state| state.wait).collect::<Vec<_>>())
            .bind(states.iter().map(|state| state.reason).collect::<Vec<_>>())
            .bind(
                states
                    .iter()
                    .map(|state| state.error.as_deref().map(|e| encoding.escaped(e)))
                    .collect::<Vec<_>>(),
            )
            .bind(&*owner.node)
            .bind(states.iter().map(|state| state.keep).collect::<Vec<_>>())
            .bind(leaves_work)
            .bind(channel)
            .bind(&digests)
            .bind(added)
            .fetch_one(connection)
            .await?;
        let stored = report(&row.try_get::<Vec<i64>, _>("ids")?, rows.iter().map(|new| new.id));
        Ok((stored, row.try_get("added")?))
    }
}
