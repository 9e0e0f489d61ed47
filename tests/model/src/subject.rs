//! What a history needs of a store that is put on trial.

use std::future::Future;
use std::time::Duration;

use cap_core::error::StorageError;
use cap_core::monitor::Monitor;
use cap_core::storage::{NewOutgoing, Owner, Storage, Stored};

/// An empty store, and a hand on its clock.
pub trait Subject {
    /// The store.
    type Store: Storage + Monitor;

    /// Whether the clock moves only by [`pass`](Self::pass). Times are then compared to the millisecond, and otherwise to
    /// the half hour: all times of a history are whole hours.
    const EXACT: bool;

    /// Whether two calls can fall into one moment of its clock. A millisecond is then made to pass before each step.
    const COARSE: bool;

    /// The store.
    fn store(&self) -> &Self::Store;

    /// Lets time pass.
    fn pass(&self, time: Duration) -> impl Future<Output = Result<(), StorageError>>;

    /// Stores messages in a transaction of the application's, and commits it or rolls it back. A store without such
    /// transactions writes plainly, or not at all.
    fn publish_within(
        &self,
        owner: &Owner,
        messages: &[NewOutgoing],
        commit: bool,
    ) -> impl Future<Output = Result<Vec<Stored>, StorageError>>;
}
