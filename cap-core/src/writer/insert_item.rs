//! Rows to be inserted together, and who waits for that.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::after_write::AfterWrite;
use crate::error::StorageError;
use crate::runtime::engine::Engine;
use crate::storage::{Entry, Lease, NewIncoming, NewOutgoing, Side, Stored};

/// Rows to be inserted together, and who waits for it.
pub(crate) enum InsertItem {
    Outgoing {
        rows: Vec<NewOutgoing>,
        /// What follows from it, whether anybody still waits or not.
        after_write: Box<dyn AfterWrite>,
        reply: Reply,
    },
    Incoming(Vec<NewIncoming>, Reply),
}

type Reply = oneshot::Sender<Result<Vec<Stored>, StorageError>>;

impl InsertItem {
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Outgoing { rows, .. } => rows.iter().map(|row| row.message.size()).sum(),
            Self::Incoming(rows, _) => rows.iter().map(|row| row.message.size()).sum(),
        }
    }

    /// Whether who waits for it tries its rows one by one when they are refused together.
    pub(super) fn is_divisible(&self) -> bool {
        matches!(self, Self::Incoming(rows, _) if rows.len() > 1)
    }

    pub(super) fn first_row(&self) -> Option<(Side, i64)> {
        match self {
            Self::Outgoing { rows, .. } => rows.first().map(|row| (Side::Outbox, row.id)),
            Self::Incoming(rows, _) => rows.first().map(|row| (Side::Inbox, row.id)),
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Outgoing { rows, .. } => rows.len(),
            Self::Incoming(rows, _) => rows.len(),
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Outgoing { reply, .. } | Self::Incoming(.., reply) => reply.is_closed(),
        }
    }

    /// Says that it could not be stored. What an earlier try may have stored is looked for.
    pub(super) fn fail(self, error: StorageError) {
        match self {
            // A caller that has stopped waiting has been told that the outcome is unknown.
            Self::Outgoing { reply, .. } | Self::Incoming(.., reply) => drop(reply.send(Err(error))),
        }
    }

    /// Says what became of its rows. `since` is when the call began that has inserted them, if that was the last one.
    pub(super) fn stored(self, engine: &Engine, stored: Vec<Stored>, since: Option<Instant>) {
        match self {
            Self::Outgoing { mut after_write, reply, .. } => {
                if stored.contains(&Stored::Duplicate) {
                    after_write.not_committed();
                } else {
                    if let Some(since) = since {
                        after_write.inserted(since);
                    }
                    after_write.committed();
                }
                drop(reply.send(Ok(stored)));
            }
            Self::Incoming(rows, reply) => {
                if engine.lifecycle.stop.intake.is_cancelled() {
                    note_leases(engine, &rows, &stored);
                }
                drop(reply.send(Ok(stored)));
            }
        }
    }
}

/// Whether a message has the id that the bus gave it, the row's, and not one of the application's.
pub(crate) fn has_generated_id(row: &NewOutgoing) -> bool {
    row.message.id().and_then(|id| id.parse().ok()) == Some(row.id)
}

/// Notes the leases of received rows whose consumer may have stopped waiting, so that they are released at the end.
fn note_leases(engine: &Engine, rows: &[NewIncoming], stored: &[Stored]) {
    let new = rows.iter().zip(stored).filter(|(_, stored)| **stored == Stored::New);
    for (row, _) in new.filter(|(row, _)| matches!(row.entry, Entry::Scheduled { held: true })) {
        engine.storage.leases.add(Side::Inbox, Lease { id: row.id, epoch: 1 }, None);
    }
}
