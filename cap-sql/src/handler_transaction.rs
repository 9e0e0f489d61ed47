//! A transaction as the argument of a handler: how it gets from the argument back to the bus.
//!
//! The handler's argument holds the transaction in a [`Lent`]. When that is dropped, at the handler's end, the transaction goes
//! back to its [`Slot`], where the bus takes it to complete the message, or to roll back.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cap_adapter::error::StorageError;
use cap_adapter::{BoxFuture, Completion, Delivery, Enlisted, HandlerError};
use tokio::time::timeout;

use crate::driver_error::NoAnswer;

/// An open transaction, as an adapter completes it.
pub trait HandlerTransaction: Sized + Send + 'static {
    /// The storage that it belongs to.
    type Storage: Send + Sync + 'static;

    /// Writes the outcome and commits, within a time limit. `false` when the lease is lost; then everything is rolled back.
    ///
    /// # Errors
    ///
    /// When the database failed. Everything is rolled back, except that after a connection lost during the commit it is not
    /// known.
    fn complete(
        self,
        storage: &Self::Storage,
        completion: &Completion,
    ) -> impl Future<Output = Result<bool, StorageError>> + Send;

    /// Rolls back, within a time limit.
    ///
    /// # Errors
    ///
    /// When it is not rolled back yet.
    fn roll_back(self, storage: &Self::Storage) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Returns the error of a handler that has returned and still holds the transaction, in a task perhaps.
    fn still_in_use(storage: &Self::Storage) -> StorageError;
}

/// Where a handler's argument puts the transaction when it is dropped. What comes back after the bus has given up on it is
/// dropped with the slot, and so rolled back.
#[derive(Debug)]
pub struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Slot<T> {
    fn transaction(&self) -> MutexGuard<'_, Option<T>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends a transaction to a handler, until the result is dropped.
    #[must_use]
    pub fn lend(&self, transaction: T) -> Lent<T> {
        Lent { transaction: Some(transaction), slot: Self(Arc::clone(&self.0)) }
    }
}

/// A transaction in the hands of a handler. Dropped, it goes back to its [`Slot`].
#[derive(Debug)]
pub struct Lent<T> {
    /// There until this is dropped.
    transaction: Option<T>,
    slot: Slot<T>,
}

// The transaction leaves the value only when that is dropped.
const LENT: &str = "a lent transaction is there until it is dropped";

impl<T> Deref for Lent<T> {
    type Target = T;

    #[allow(clippy::expect_used, reason = "see LENT")]
    fn deref(&self) -> &T {
        self.transaction.as_ref().expect(LENT)
    }
}

impl<T> DerefMut for Lent<T> {
    #[allow(clippy::expect_used, reason = "see LENT")]
    fn deref_mut(&mut self) -> &mut T {
        self.transaction.as_mut().expect(LENT)
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        *self.slot.transaction() = self.transaction.take();
    }
}

/// The bus's end of the transaction.
struct Enlistment<T: HandlerTransaction> {
    storage: T::Storage,
    slot: Slot<T>,
}

/// Makes a transaction part of a delivery. The transaction may begin before or after this.
///
/// # Errors
///
/// When the handler has one already.
pub fn enlist<T: HandlerTransaction>(
    delivery: &Delivery,
    storage: T::Storage,
) -> Result<Slot<T>, HandlerError> {
    let slot = Slot(Arc::new(Mutex::new(None)));
    let enlistment = Enlistment { storage, slot: Slot(Arc::clone(&slot.0)) };
    match delivery.enlist(Box::new(enlistment)) {
        Ok(()) => Ok(slot),
        Err(_) => Err(HandlerError::permanent("a handler can take one transaction; this one takes two")),
    }
}

/// Returns the error of a handler whose transaction cannot begin. In an outage nothing is counted against the message, as the
/// handler has not begun; it is tried again a second later.
#[must_use]
pub fn cannot_begin(error: StorageError) -> HandlerError {
    if error.is_unavailable() {
        HandlerError::cancelled().retry_after(Duration::from_secs(1)).because(error)
    } else {
        HandlerError::failed(error)
    }
}

/// How long the record of a failure waits for the rollback. A handler that was stopped in the middle of a statement leaves a
/// connection that cannot answer before that statement is over; it rolls back then, before it does anything else.
pub const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits for an answer for a limited time.
///
/// # Errors
///
/// Those of the work, or [`NoAnswer`].
pub async fn within_time<T, E: From<NoAnswer>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(NoAnswer(limit).into()))
}

impl<T: HandlerTransaction> Enlisted for Enlistment<T> {
    fn complete(self: Box<Self>, completion: Completion) -> BoxFuture<'static, Result<bool, StorageError>> {
        Box::pin(async move {
            // In a statement of its own, as the lock must not be held across the await.
            let transaction = self.slot.transaction().take();
            match transaction {
                Some(transaction) => transaction.complete(&self.storage, &completion).await,
                None => Err(T::still_in_use(&self.storage)),
            }
        })
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Some(transaction) = self.slot.transaction().take() else { return };
            if let Err(error) = transaction.roll_back(&self.storage).await {
                tracing::debug!(%error, "handler's transaction is not rolled back yet");
            }
        })
    }
}
