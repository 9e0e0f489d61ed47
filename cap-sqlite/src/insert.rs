//! New messages, row by row on whatever connection: a call costs microseconds, where no network lies between.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use cap_adapter::message::Message;
use cap_adapter::storage::{Digest, Entry, NewIncoming, NewOutgoing, Owner, Side, Stored};
use sqlx::{Row as _, SqliteConnection};

use crate::columns::{
    DELAYED, FAILED, SCHEDULED, check_group, check_message, check_owner, micros, side_name,
};
use crate::error::{Fault, without_nul};
use crate::identity::{self, Found};
use crate::statements::Statements;
use crate::work::Work;

pub(crate) const OUTGOING: &str = "
INSERT INTO {prefix}outbox (id, version, name, message_id, added, headers, body)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (message_id) DO NOTHING";

pub(crate) const INCOMING: &str = "
INSERT INTO {prefix}inbox (id, version, name, message_id, added, headers, body, group_name, digest)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (message_id, group_name) DO NOTHING";

pub(crate) const OUTGOING_STATE: &str = "
INSERT INTO {prefix}outbox_state (id, version, status, epoch, due, owner) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

pub(crate) const INCOMING_STATE: &str = "
INSERT INTO {prefix}inbox_state
    (id, version, status, epoch, due, owner, group_name, reason, last_error, expires)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// The message that has a row id already.
pub(crate) const HELD: &str = "
SELECT m.headers, m.body, {group} AS group_name FROM {messages} AS m WHERE m.id = ?1";

/// The parts of a transaction that do not change from row to row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writing<'a> {
    pub(crate) statements: &'a Statements,
    pub(crate) owner: &'a Owner,
    /// What time it is: all rows of a transaction have the same, and so stand in the order of their ids.
    pub(crate) now: i64,
}

impl Writing<'_> {
    pub(crate) fn lease_end(&self) -> i64 {
        self.now + micros(self.owner.lease)
    }
}

/// Puts messages into the outbox, and says of each whether it is new.
pub(crate) async fn outgoing(
    connection: &mut SqliteConnection,
    writing: Writing<'_>,
    rows: &[&NewOutgoing],
    work: &mut Work,
) -> Result<Vec<Stored>, Fault> {
    check_owner(&writing.owner.version, &writing.owner.node)?;
    let mut stored = Vec::with_capacity(rows.len());
    for new in rows {
        check_message(new.id, &new.message)?;
        let is_new = outgoing_message(connection, writing, new).await?;
        if is_new {
            outgoing_state(connection, writing, new, work).await?;
        }
        stored.push(if is_new { Stored::New } else { Stored::Duplicate });
    }
    Ok(stored)
}

/// Inserts a message, unless its message id is there, and says whether it did.
async fn outgoing_message(
    connection: &mut SqliteConnection,
    writing: Writing<'_>,
    new: &NewOutgoing,
) -> Result<bool, Fault> {
    let Message { headers, body } = &*new.message;
    let done = sqlx::query(writing.statements.insert_outgoing.clone())
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

async fn outgoing_state(
    connection: &mut SqliteConnection,
    writing: Writing<'_>,
    new: &NewOutgoing,
    work: &mut Work,
) -> Result<(), Fault> {
    let held = new.held && new.delay.is_none();
    let due = match new.delay {
        Some(delay) => writing.now + micros(delay),
        None if held => writing.lease_end(),
        None => writing.now,
    };
    if !held {
        work.add(Side::Outbox);
    }
    sqlx::query(writing.statements.insert_outgoing_state.clone())
        .bind(new.id)
        .bind(&*writing.owner.version)
        .bind(if new.delay.is_some() { DELAYED } else { SCHEDULED })
        .bind(i64::from(held))
        .bind(due)
        .bind(held.then_some(&*writing.owner.node))
        .execute(connection)
        .await?;
    Ok(())
}

/// Puts messages into the inbox, and says of each whether it is new.
pub(crate) async fn incoming(
    connection: &mut SqliteConnection,
    writing: Writing<'_>,
    rows: &[&NewIncoming],
    work: &mut Work,
) -> Result<Vec<Stored>, Fault> {
    check_owner(&writing.owner.version, &writing.owner.node)?;
    let mut stored = Vec::with_capacity(rows.len());
    for new in rows {
        check_message(new.id, &new.message)?;
        check_group(new.id, &new.group)?;
        let mut found = incoming_message(connection, writing, new).await?;
        if found != Stored::New {
            found = match identity::resolve(connection, writing, new).await? {
                Found::Known(known) => known,
                Found::NothingNow => incoming_message(connection, writing, new).await?,
            };
        }
        if found == Stored::New {
            incoming_state(connection, writing, new, work).await?;
        }
        stored.push(found);
    }
    Ok(stored)
}

/// Inserts a message, unless its message id is there for the group, and says whether it did.
async fn incoming_message(
    connection: &mut SqliteConnection,
    writing: Writing<'_>,
    new: &NewIncoming,
) -> Result<Stored, Fault> {
    let Message { headers, body } = &*new.message;
    let done = sqlx::query(writing.statements.insert_incoming.clone())
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

async fn incoming_state(
    connection: &mut SqliteConnection,
    writing: Writing<'_>,
    new: &NewIncoming,
    work: &mut Work,
) -> Result<(), Fault> {
    let first = sqlx::query(writing.statements.insert_incoming_state.clone())
        .bind(new.id)
        .bind(&*writing.owner.version);
    let node = &*writing.owner.node;
    let query = match &new.entry {
        Entry::Scheduled { held } => {
            if !held {
                work.add(Side::Inbox);
            }
            first
                .bind(SCHEDULED)
                .bind(i64::from(*held))
                .bind(if *held { writing.lease_end() } else { writing.now })
                .bind(held.then_some(node))
                .bind(&*new.group)
                .bind(None::<&str>)
                .bind(None::<&str>)
                .bind(None::<i64>)
        }
        Entry::Parked { reason, error, keep, notify } => first
            .bind(FAILED)
            .bind(i64::from(*notify))
            .bind(notify.then(|| writing.lease_end()))
            .bind(notify.then_some(node))
            .bind(&*new.group)
            .bind(reason.as_str())
            .bind(without_nul(error).into_owned())
            .bind(writing.now + micros(*keep)),
    };
    query.execute(connection).await?;
    Ok(())
}

/// A row to be inserted, as far as it matters whether it is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate<'a> {
    headers: String,
    body: &'a [u8],
    group: &'a str,
}

impl<'a> Candidate<'a> {
    pub(crate) fn outgoing(new: &'a NewOutgoing) -> (i64, Self) {
        (new.id, Self { headers: new.message.headers.to_json(), body: &new.message.body, group: "" })
    }

    pub(crate) fn incoming(new: &'a NewIncoming) -> (i64, Self) {
        (new.id, Self { headers: new.message.headers.to_json(), body: &new.message.body, group: &new.group })
    }
}

/// The row ids that are in the table with the very same message, as after a repeated call. Two messages under one id are
/// refused: one of them would be lost without a word.
pub(crate) async fn repeated_ids(
    connection: &mut SqliteConnection,
    statements: &Statements,
    side: Side,
    candidates: Vec<(i64, Candidate<'_>)>,
) -> Result<HashSet<i64>, Fault> {
    let mut by_id = HashMap::new();
    for (id, candidate) in candidates {
        if by_id.insert(id, candidate.clone()).is_some_and(|earlier| earlier != candidate) {
            return Err(clash(side, id));
        }
    }
    let mut repeated = HashSet::new();
    for (id, candidate) in by_id {
        let held = sqlx::query(statements.held.of(side)).bind(id).fetch_optional(&mut *connection).await?;
        let Some(row) = held else { continue };
        let (headers, group) = (row.try_get("headers")?, row.try_get("group_name")?);
        if candidate != (Candidate { headers, body: row.try_get("body")?, group }) {
            return Err(clash(side, id));
        }
        repeated.insert(id);
    }
    Ok(repeated)
}

fn clash(side: Side, id: i64) -> Fault {
    let table = side_name(side);
    Fault::Refused(format!(
        "row {id} of the {table} holds another message; do two nodes have the same worker id?"
    ))
}
