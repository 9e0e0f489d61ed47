//! Inserts one published message on a connection of the application, by a statement whose plan PostgreSQL keeps.

use cap_adapter::storage::{NewOutgoing, Stored};
use cap_sql::checks::{check_message, check_owner};
use cap_sql::state_row::FirstState;
use cap_sql::templates::Templates;
use sqlx::{PgConnection, Row as _, SqlStr};

use crate::database::driver_buffers::arguments;
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::outgoing_row::{Asked, Inserted, number, own_message_id};

// For one row what the statement for many is for many, with a parameter for each column. To PostgreSQL a plan for any array looks
// more expensive than a plan for the very array that it is given, so that it would plan the insert of an array anew for each
// message; a plan for scalars costs the same whatever they are, and is kept from the sixth execution on, without a
// setting of ours.
//
// `{conflict}` is empty for a message whose id is the row's: it has no text in the unique index, and an insert that looks
// for no conflict costs less. A message id that may be another row's number is left to the statement for many: looking that up is the
// only part whose plan depends on the size of a table.
//
// As there, every function, operator and type is qualified as PostgreSQL's.
const INSERT_ONE: &str = "
WITH inserted AS (
    INSERT INTO {schema}.outbox (id, version, name, message_id, headers, body, added)
    VALUES ($1, $2, $3, $4, $5, $6, pg_catalog.statement_timestamp())
    {conflict}
    RETURNING id
), stated AS (
    INSERT INTO {schema}.outbox_state (id, version, status, epoch, due, owner)
    SELECT i.id, $2, $7, $8::boolean::integer,
        pg_catalog.statement_timestamp()
            OPERATOR(pg_catalog.+) ($9::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'),
        CASE WHEN $8 THEN $10 END
    FROM inserted AS i
)
SELECT pg_catalog.count(*) AS new,
    CASE WHEN $11 THEN pg_catalog.set_config('cap.stored', (
        pg_catalog.concat('0', pg_catalog.current_setting('cap.stored', true))::bigint
            OPERATOR(pg_catalog.+) pg_catalog.count(*)
    )::pg_catalog.text, true)::integer END AS counted,
    CASE WHEN $12 THEN pg_catalog.txid_current() END AS transaction
FROM inserted";

/// What makes a message id that is taken a duplicate and no error.
const CONFLICT: &str = "ON CONFLICT (message_id) WHERE message_id IS NOT NULL DO NOTHING";

/// The two statements that insert one message.
#[derive(Debug)]
pub(crate) struct InsertOne {
    /// For a message whose id is the row's.
    pub(crate) generated_id: SqlStr,
    /// For one with a message id of the application.
    pub(crate) own_id: SqlStr,
}

impl InsertOne {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            generated_id: templates.one(&INSERT_ONE.replace("{conflict}", "")),
            own_id: templates.one(&INSERT_ONE.replace("{conflict}", CONFLICT)),
        }
    }

    /// The statement that inserts this message; none if other rows have to be looked at.
    pub(crate) fn statement(&self, new: &NewOutgoing) -> Option<SqlStr> {
        match own_message_id(new) {
            None => Some(self.generated_id.clone()),
            Some(id) if number(id).is_none() => Some(self.own_id.clone()),
            Some(_) => None,
        }
    }
}

/// Inserts one message into the outbox.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    writing: Writing<'_>,
    statement: SqlStr,
    new: &NewOutgoing,
    asked: Asked,
) -> Result<Inserted, Fault> {
    let Writing { owner, encoding, prepared, .. } = writing;
    check_owner(owner)?;
    check_message(new.id, &new.message)?;
    let state = FirstState::of_outgoing(new, owner);
    let row = sqlx::query_with(statement, arguments(new.message.size()))
        .persistent(prepared)
        .bind(new.id)
        .bind(&*owner.version)
        .bind(new.message.name().unwrap_or_default())
        .bind(own_message_id(new))
        .bind(encoding.headers(new.message.headers.to_json()))
        .bind(&*new.message.body)
        .bind(state.status)
        .bind(state.leased)
        .bind(state.wait)
        .bind(&*owner.node)
        .bind(asked == Asked::Count)
        .bind(asked == Asked::Transaction)
        .fetch_one(connection)
        .await?;
    let stored = if row.try_get::<i64, _>("new")? == 1 { Stored::New } else { Stored::Duplicate };
    Inserted::new(vec![stored], Some(&row))
}
