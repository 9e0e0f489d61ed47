//! Publishing inside the caller's own transaction.

use std::future::Future;

use super::handover::Handover;
use crate::error::StorageError;
use crate::storage::{NewOutgoing, Owner, Stored};

/// A transaction in which messages can be stored, so that they leave if and only if it commits; `S` is the storage
/// that it belongs to. What [`Publish::within`](super::Publish::within) takes.
///
/// Adapters implement it for a transaction of their own, which knows of the commit and hands the messages to the
/// relay in memory, and for the plain transactions of their database library, which make the store announce them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transaction that a message can be published in",
    note = "give it a transaction of the bus's own storage, such as the one that `cap_postgres::begin` returns"
)]
pub trait Within<S>: Send {
    /// Inserts messages on this transaction. A row that is not held must be announced to all nodes when the
    /// transaction commits.
    fn store(
        &mut self,
        storage: &S,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> impl Future<Output = Result<Vec<Stored>, StorageError>> + Send;

    /// Where messages wait for the commit, to be handed to the relay in memory. `None`, the default, for a
    /// transaction whose commit nobody here learns of: its messages are inserted unheld.
    fn handover(&mut self) -> Option<&mut Handover> {
        None
    }
}
