//! Inserts received messages, row by row.

use std::borrow::Cow;

use cap_adapter::message::Message;
use cap_adapter::storage::{Digest, NewIncoming, Side, Stored};
use cap_sql::checks::{check_group, check_message, check_owner};
use cap_sql::state_row::FirstState;
use cap_sql::templates::Templates;
use sqlx::{SqlStr, SqliteConnection};

use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::duplicate_delivery::{DuplicateDelivery, Found};
use crate::write::work_left::Work;

const MESSAGE: &str = "
INSERT INTO {prefix}inbox (id, version, name, message_id, added, headers, body, group_name, digest)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (message_id, group_name) DO NOTHING";

const STATE: &str = "
INSERT INTO {prefix}inbox_state
    (id, version, status, epoch, due, owner, group_name, reason, last_error, expires)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// Inserts received messages.
#[derive(Debug)]
pub(crate) struct InsertIncoming {
    pub(crate) message: SqlStr,
    pub(crate) state: SqlStr,
    pub(crate) duplicates: DuplicateDelivery,
}

impl InsertIncoming {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            message: templates.one(MESSAGE),
            state: templates.one(STATE),
            duplicates: DuplicateDelivery::prepare(templates),
        }
    }

    /// Inserts messages, and returns for each whether it is new, a duplicate, or in conflict with another one.
    pub(crate) async fn insert(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        rows: &[&NewIncoming],
        work: &mut Work,
    ) -> Result<Vec<Stored>, Fault> {
        check_owner(writing.owner)?;
        let mut stored = Vec::with_capacity(rows.len());
        for new in rows {
            check_message(new.id, &new.message)?;
            check_group(new.id, &new.group)?;
            let mut found = self.insert_message(connection, writing, new).await?;
            if found != Stored::New {
                found = match self.duplicates.resolve(connection, new).await? {
                    Found::Known(known) => known,
                    Found::NothingNow => self.insert_message(connection, writing, new).await?,
                };
            }
            if found == Stored::New {
                self.insert_state(connection, writing, new, work).await?;
            }
            stored.push(found);
        }
        Ok(stored)
    }

    /// Inserts a message, unless its message id is there for the group, and returns whether it did.
    async fn insert_message(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        new: &NewIncoming,
    ) -> Result<Stored, Fault> {
        let Message { headers, body } = &*new.message;
        let done = sqlx::query(self.message.clone())
            .bind(new.id)
            .bind(&*writing.owner.version)
            .bind(new.message.name().unwrap_or_default())
            .bind(new.stored_message_id().map(Cow::into_owned))
            .bind(writing.now)
            .bind(headers.to_json())
            .bind(&**body)
            .bind(&*new.group)
            .bind(new.identity.digest.as_ref().map(Digest::as_bytes))
            .execute(connection)
            .await?;
        Ok(if done.rows_affected() > 0 { Stored::New } else { Stored::Duplicate })
    }

    async fn insert_state(
        &self,
        connection: &mut SqliteConnection,
        writing: Writing<'_>,
        new: &NewIncoming,
        work: &mut Work,
    ) -> Result<(), Fault> {
        let state = FirstState::of_incoming(&new.entry, writing.owner);
        if state.leaves_work() {
            work.add(Side::Inbox);
        }
        let later = |wait| writing.now + wait;
        sqlx::query(self.state.clone())
            .bind(new.id)
            .bind(&*writing.owner.version)
            .bind(state.status)
            .bind(i64::from(state.leased))
            .bind(state.wait.map(later))
            .bind(state.leased.then_some(&*writing.owner.node))
            .bind(&*new.group)
            .bind(state.reason)
            .bind(state.error.as_deref())
            .bind(state.keep.map(later))
            .execute(connection)
            .await?;
        Ok(())
    }
}
