//! Inserts published messages, row by row on any connection: a call costs microseconds, as there is no network between.

use cap_adapter::message::Message;
use cap_adapter::storage::{NewOutgoing, Side, Stored};
use cap_sql::checks::{check_message, check_owner};
use cap_sql::state_row::FirstState;
use cap_sql::templates::Templates;
use sqlx::{SqlStr, SqliteConnection};

use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::work_left::Work;

const MESSAGE: &str = "
INSERT INTO {prefix}outbox (id, version, name, message_id, added, headers, body)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (message_id) DO NOTHING";

const STATE: &str = "
INSERT INTO {prefix}outbox_state (id, version, status, epoch, due, owner) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// The message, if it is there.
const STORED: &str = "SELECT 1 FROM {prefix}outbox WHERE id = ?1";

/// Inserts published messages.
#[derive(Debug)]
pub(crate) struct InsertOutgoing {
    pub(crate) message: SqlStr,
    pub(crate) state: SqlStr,
    /// Looks whether a message is there.
    pub(crate) stored: SqlStr,
}

impl InsertOutgoing {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { message: templates.one(MESSAGE), state: templates.one(STATE), stored: templates.one(STORED) }
    }

    /// Inserts messages, and returns for each whether it is new.
    pub(crate) async fn insert(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        rows: &[&NewOutgoing],
        work: &mut Work,
    ) -> Result<Vec<Stored>, Fault> {
        check_owner(writing.owner)?;
        let mut stored = Vec::with_capacity(rows.len());
        for new in rows {
            check_message(new.id, &new.message)?;
            let is_new = self.insert_message(connection, writing, new).await?;
            if is_new {
                self.insert_state(connection, writing, new, work).await?;
            }
            stored.push(if is_new { Stored::New } else { Stored::Duplicate });
        }
        Ok(stored)
    }

    /// Inserts a message, unless its message id is there, and returns whether it did.
    async fn insert_message(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        new: &NewOutgoing,
    ) -> Result<bool, Fault> {
        let Message { headers, body } = &*new.message;
        let done = sqlx::query(self.message.clone())
            .bind(new.id)
            .bind(&*writing.owner.version)
            .bind(new.message.name().unwrap_or_default())
            .bind(new.message.id())
            .bind(writing.now)
            .bind(headers.to_json())
            .bind(&**body)
            .execute(connection)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    async fn insert_state(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        new: &NewOutgoing,
        work: &mut Work,
    ) -> Result<(), Fault> {
        let state = FirstState::of_outgoing(new, writing.owner);
        if state.leaves_work() {
            work.add(Side::Outbox);
        }
        sqlx::query(self.state.clone())
            .bind(new.id)
            .bind(&*writing.owner.version)
            .bind(state.status)
            .bind(i64::from(state.leased))
            .bind(state.wait.map(|wait| writing.now + wait))
            .bind(state.leased.then_some(&*writing.owner.node))
            .execute(connection)
            .await?;
        Ok(())
    }
}
