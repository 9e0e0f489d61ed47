//! Decides what becomes of received messages whose id another row has: it is the same message again, or another one.
//!
//! Nothing of this runs unless an insert has left a row out, and the transaction has the write lock all the while.

use cap_adapter::storage::{Digest, Holder, Identity, Meeting, NewIncoming, Stored};
use cap_sql::columns::{count_of, reason_of, status_of};
use cap_sql::templates::Templates;
use sqlx::{Row as _, SqlStr, SqliteConnection};

use crate::database::error::Fault;

/// The row that has a message id in a group.
const HOLDER: &str = "
SELECT m.id, m.digest FROM {prefix}inbox AS m INDEXED BY {prefix}inbox_message_id
WHERE m.message_id = ?1 AND m.group_name = ?2";

const HOLDER_STATE: &str = "
SELECT s.status, s.reason, s.attempts, s.reruns, s.epoch FROM {prefix}inbox_state AS s WHERE s.id = ?1";

const SET_ASIDE: &str = "UPDATE {prefix}inbox SET message_id = ?2 WHERE id = ?1";

/// What became of a row that was left out.
pub(crate) enum Found {
    Known(Stored),
    /// Nothing is in its way any more: the insert can be made again.
    NothingNow,
}

/// Decides what becomes of messages whose ids are taken.
#[derive(Debug)]
pub(crate) struct DuplicateDelivery {
    holder: SqlStr,
    holder_state: SqlStr,
    set_aside: SqlStr,
}

impl DuplicateDelivery {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            holder: templates.one(HOLDER),
            holder_state: templates.one(HOLDER_STATE),
            set_aside: templates.one(SET_ASIDE),
        }
    }

    /// Finds out what became of a row that was left out, as its message id is taken; one that was never handled makes way.
    pub(crate) async fn resolve(
        &self,
        connection: &mut SqliteConnection,
        new: &NewIncoming,
    ) -> Result<Found, Fault> {
        let (Some(message_id), Some(given)) = (new.stored_message_id(), new.message.id()) else {
            return Ok(Found::Known(Stored::Duplicate));
        };
        let Some((id, holder)) = self.holder(connection, &message_id, &new.group).await? else {
            return Ok(Found::NothingNow);
        };
        let meeting = holder.meets(&new.identity);
        if meeting == Meeting::Same || self.is_taken(connection, new.own_message_id(), &new.group).await? {
            return Ok(Found::Known(Stored::Duplicate));
        }
        if meeting == Meeting::Conflict {
            return Ok(Found::Known(Stored::Conflict));
        }
        let identity = Identity { digest: holder.digest, apart: true };
        let mut own = identity.own_message_id(given);
        if self.is_taken(connection, own.clone(), &new.group).await? {
            own = None;
        }
        sqlx::query(self.set_aside.clone()).bind(id).bind(own).execute(connection).await?;
        Ok(Found::NothingNow)
    }

    async fn is_taken(
        &self,
        connection: &mut SqliteConnection,
        message_id: Option<String>,
        group: &str,
    ) -> Result<bool, Fault> {
        let Some(message_id) = message_id else { return Ok(false) };
        let held = sqlx::query(self.holder.clone()).bind(message_id).bind(group);
        Ok(held.fetch_optional(connection).await?.is_some())
    }

    async fn holder(
        &self,
        connection: &mut SqliteConnection,
        message_id: &str,
        group: &str,
    ) -> Result<Option<(i64, Holder)>, Fault> {
        let held = sqlx::query(self.holder.clone()).bind(message_id).bind(group);
        let Some(row) = held.fetch_optional(&mut *connection).await? else { return Ok(None) };
        let id: i64 = row.try_get("id")?;
        let digest = row.try_get::<Option<&[u8]>, _>("digest")?.and_then(Digest::from_stored);
        let state = sqlx::query(self.holder_state.clone()).bind(id).fetch_optional(connection).await?;
        let mut holder =
            Holder { digest, status: status_of(None), reason: None, attempts: 0, reruns: 0, epoch: 0 };
        if let Some(state) = state {
            holder.status = status_of(state.try_get("status")?);
            holder.reason = reason_of(state.try_get("reason")?);
            holder.attempts = count_of(state.try_get("attempts")?);
            holder.reruns = count_of(state.try_get("reruns")?);
            holder.epoch = i32::try_from(state.try_get::<i64, _>("epoch")?).unwrap_or(i32::MAX);
        }
        Ok(Some((id, holder)))
    }
}
