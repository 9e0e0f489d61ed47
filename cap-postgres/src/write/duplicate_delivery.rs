//! Decides what becomes of received messages whose id another row has: it is the same message again, or another one.
//!
//! Nothing of this runs unless an insert has left a row out.

use std::borrow::Cow;
use std::collections::HashMap;

use cap_adapter::storage::{Digest, Holder, Identity, Meeting, NewIncoming, Stored};
use cap_sql::columns::{count_of, reason_of, status_of};
use cap_sql::templates::Templates;
use sqlx::postgres::PgRow;
use sqlx::types::time::OffsetDateTime;
use sqlx::{Connection as _, PgConnection, Row as _, SqlStr};

use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::write::insert_incoming::InsertIncoming;

/// The rows that have these message ids in these groups.
const HOLDERS: &str = "
SELECT i.place, m.id, m.digest, s.status, s.reason, s.attempts, s.reruns, s.epoch
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS i(place, message_id, group_name)
JOIN {schema}.inbox AS m ON m.message_id = i.message_id AND m.group_name = i.group_name
LEFT JOIN {schema}.inbox_state AS s ON s.id = m.id";

/// Keeps others from changing the row that has a message id: a re-run locks it, too.
const LOCK_HOLDER: &str =
    "SELECT m.id FROM {schema}.inbox AS m WHERE m.message_id = $1 AND m.group_name = $2 FOR UPDATE";

/// Gives a row a message id of its own, or none if that is taken.
const SET_ASIDE: &str = "
UPDATE {schema}.inbox AS m SET message_id = CASE WHEN (
    SELECT o.id FROM {schema}.inbox AS o WHERE o.message_id = $2 AND o.group_name = m.group_name
) IS NULL THEN $2 END
WHERE m.id = $1";

/// How often others may be faster at taking over an id before the message is stored apart.
const TRIES: usize = 3;

/// What became of a row that was left out.
enum Found {
    /// That much is known.
    Known(Stored),
    /// This row, of this message id, makes way.
    MakesWay(i64, Option<String>),
    /// The row that was in the way is gone.
    Nobody,
}

/// Decides what becomes of messages whose ids are taken.
#[derive(Debug)]
pub(crate) struct DuplicateDelivery {
    pub(crate) holders: SqlStr,
    pub(crate) lock_holder: SqlStr,
    pub(crate) set_aside: SqlStr,
}

impl DuplicateDelivery {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            holders: templates.one(HOLDERS),
            lock_holder: templates.one(LOCK_HOLDER),
            set_aside: templates.one(SET_ASIDE),
        }
    }

    /// Finds out what became of the rows that were left out as their message ids are taken. Those that are stored after all
    /// are in the order of the batch: they have its time.
    pub(crate) async fn resolve(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        insert: &InsertIncoming,
        rows: &[&NewIncoming],
        stored: &mut [Stored],
        added: OffsetDateTime,
    ) -> Result<(), Fault> {
        let left_out = |place: &usize| {
            stored[*place] == Stored::Duplicate
                && rows[*place].identity.digest.is_some()
                && rows[*place].message.id().is_some()
        };
        let places: Vec<usize> = (0..rows.len()).filter(left_out).collect();
        if places.is_empty() {
            return Ok(());
        }
        let asked: Vec<&NewIncoming> = places.iter().map(|place| rows[*place]).collect();
        for (place, found) in places.into_iter().zip(self.look(connection, writing, &asked).await?) {
            stored[place] = match found {
                Found::Known(known) => known,
                Found::MakesWay(..) | Found::Nobody => {
                    self.take_over(connection, writing, insert, rows[place], added).await?
                }
            };
        }
        Ok(())
    }

    /// Stores a message in the place of one that makes way, both at once. Several may try.
    async fn take_over(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        insert: &InsertIncoming,
        row: &NewIncoming,
        added: OffsetDateTime,
    ) -> Result<Stored, Fault> {
        let Some(message_id) = row.stored_message_id() else { return Ok(Stored::Duplicate) };
        let message_id = writing.encoding.fitting_id(&message_id);
        for _ in 0..TRIES {
            let mut transaction = connection.begin().await?;
            sqlx::query(self.lock_holder.clone())
                .bind(&*message_id)
                .bind(&*row.group)
                .fetch_optional(&mut *transaction)
                .await?;
            match self.look(&mut transaction, writing, &[row]).await?.pop() {
                Some(Found::Known(known)) => {
                    transaction.rollback().await?;
                    return Ok(known);
                }
                Some(Found::MakesWay(id, own)) => {
                    let aside = sqlx::query(self.set_aside.clone()).bind(id).bind(own);
                    aside.execute(&mut *transaction).await?;
                }
                Some(Found::Nobody) | None => {}
            }
            let (stored, _) = insert.insert(&mut transaction, writing, &[row], Some(added)).await?;
            if stored == [Stored::New] {
                transaction.commit().await?;
                return Ok(Stored::New);
            }
            transaction.rollback().await?;
        }
        Ok(Stored::Conflict)
    }

    /// Looks which rows have the ids of messages, in one statement, and decides for each what follows.
    async fn look(
        &self,
        connection: &mut PgConnection,
        writing: Writing<'_>,
        rows: &[&NewIncoming],
    ) -> Result<Vec<Found>, Fault> {
        // For each message two places: the row that has the id that it came with, and the row that has its own id.
        let (mut places, mut message_ids, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for (place, row) in (0_i64..).step_by(2).zip(rows) {
            let own = row.own_message_id().filter(|_| !row.identity.apart);
            let both = [row.stored_message_id().map(Cow::into_owned), own];
            for (offset, message_id) in (0..).zip(both) {
                if let Some(message_id) = message_id {
                    places.push(place + offset);
                    message_ids.push(writing.encoding.fitting_id(&message_id).into_owned());
                    groups.push(&*row.group);
                }
            }
        }
        let found = sqlx::query(self.holders.clone())
            .bind(&places)
            .bind(&message_ids)
            .bind(&groups)
            .fetch_all(connection)
            .await?;
        let mut by_place = HashMap::new();
        for row in found {
            by_place.insert(row.try_get::<i64, _>("place")?, (row.try_get::<i64, _>("id")?, holder(&row)?));
        }
        let judge = |(place, row): (i64, &&NewIncoming)| {
            let Some((id, holder)) = by_place.get(&place) else { return Found::Nobody };
            match holder.meets(&row.identity) {
                Meeting::Same => Found::Known(Stored::Duplicate),
                _ if by_place.contains_key(&(place + 1)) => Found::Known(Stored::Duplicate),
                Meeting::Conflict => Found::Known(Stored::Conflict),
                Meeting::TakesOver => {
                    let identity = Identity { digest: holder.digest, apart: true };
                    let own = row.message.id().and_then(|id| identity.own_message_id(id));
                    Found::MakesWay(*id, own.map(|own| writing.encoding.fitting_id(&own).into_owned()))
                }
            }
        };
        Ok((0_i64..).step_by(2).zip(rows).map(judge).collect())
    }
}

fn holder(row: &PgRow) -> Result<Holder, Fault> {
    let digest: Option<&[u8]> = row.try_get("digest")?;
    Ok(Holder {
        digest: digest.and_then(Digest::from_stored),
        status: status_of(row.try_get("status")?),
        reason: reason_of(row.try_get("reason")?),
        attempts: count_of(row.try_get::<Option<i32>, _>("attempts")?.unwrap_or(0)),
        reruns: count_of(row.try_get::<Option<i32>, _>("reruns")?.unwrap_or(0)),
        epoch: row.try_get::<Option<i32>, _>("epoch")?.unwrap_or(0),
    })
}
