//! One message that is processed by one handler.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::BoxFuture;
use super::error::HandlerError;
use super::state::States;
use crate::error::StorageError;
use crate::message::{Message, MessageId};
use crate::storage::{Owner, RowCompletion};

/// One message that is processed by one handler. Arguments are extracted from it, and layers see it.
///
/// Cheap to clone; all clones are the same delivery.
#[derive(Clone)]
pub struct Delivery(Arc<Inner>);

struct Inner {
    parts: DeliveryParts,
    message_id: MessageId,
    enlisted: Mutex<Option<Box<dyn Enlisted>>>,
}

/// The parts of a delivery.
#[derive(Clone)]
pub struct DeliveryParts {
    /// The message as received, with the headers that the inbox adds.
    pub message: Arc<Message>,
    /// Its topic, without the bus's prefix.
    pub topic: Arc<str>,
    /// The full name of the group.
    pub group: Arc<str>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The application's values.
    pub states: Arc<States>,
    /// The bus's storage.
    pub storage: Arc<dyn Any + Send + Sync>,
    /// Whether an error may quote the body.
    pub payload_in_errors: bool,
    /// Is cancelled when the handler should stop early.
    pub cancelled: CancellationToken,
    /// How long the handler may take.
    pub timeout: Option<Duration>,
    /// The engine's data for this attempt.
    pub engine: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for DeliveryParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryParts").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// A transaction in which a handler works, opened by one of its arguments (such as `PgTx`).
///
/// When the handler has succeeded, the bus passes the outcome of the message to it: it writes the outcome in the same
/// transaction and commits, so that the handler's writes, the outcome, the reply and everything published through
/// `Publisher` take effect together or not at all.
pub trait Enlisted: Send {
    /// Writes the outcome and commits. Returns `false` if the lease was no longer valid; everything is then rolled
    /// back.
    ///
    /// # Errors
    ///
    /// When the storage failed, or the handler still holds the transaction. Everything is rolled back. Only if the
    /// connection was lost during the commit it is unknown whether it took effect; the row's epoch shows it later.
    fn complete(self: Box<Self>, completion: Completion) -> BoxFuture<'static, Result<bool, StorageError>>;

    /// Rolls back after the handler has failed.
    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// What an [`Enlisted`] transaction must write.
#[derive(Debug)]
pub struct Completion {
    /// The node that writes it.
    pub owner: Owner,
    /// The outcome of the inbox row and the messages to publish with it.
    pub row_completion: RowCompletion,
}

impl Delivery {
    /// For the engine.
    #[doc(hidden)]
    #[must_use]
    pub fn new(parts: DeliveryParts) -> Self {
        let message_id = parts.message.message_id().unwrap_or_else(|| MessageId::new(""));
        Self(Arc::new(Inner { parts, message_id, enlisted: Mutex::default() }))
    }

    /// For the engine.
    #[doc(hidden)]
    #[must_use]
    pub fn parts(&self) -> &DeliveryParts {
        &self.0.parts
    }

    /// The message as received.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.0.parts.message
    }

    /// The sender's id of the message.
    #[must_use]
    pub fn message_id(&self) -> &MessageId {
        &self.0.message_id
    }

    /// The topic as the sender set it.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.parts.topic
    }

    /// The full name of the group that handles it.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.0.parts.group
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.parts.attempt
    }

    /// Is cancelled when the handler should stop early; see [`Cancelled`](crate::Cancelled).
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.0.parts.cancelled
    }

    /// How long the handler may take, including the extraction of its arguments; `None` for no limit.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.0.parts.timeout
    }

    /// A value that the application gave to the builder.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.parts.states.get()
    }

    /// The instance whose method is the handler. Its presence was checked at start. For the macros.
    #[doc(hidden)]
    pub fn instance<T: Send + Sync + 'static>(&self) -> Result<Arc<T>, HandlerError> {
        self.state()
            .ok_or_else(|| HandlerError::permanent(format!("no instance of {}", std::any::type_name::<T>())))
    }

    /// The bus's storage as `Any`, for an adapter's own arguments.
    #[must_use]
    pub fn storage(&self) -> &dyn Any {
        &*self.0.parts.storage
    }

    /// Adds a transaction to this delivery. There is at most one: a second is returned as the error.
    ///
    /// # Errors
    ///
    /// The transaction, when there is one already.
    pub fn enlist(&self, transaction: Box<dyn Enlisted>) -> Result<(), Box<dyn Enlisted>> {
        let mut enlisted = lock(&self.0.enlisted);
        if enlisted.is_some() {
            return Err(transaction);
        }
        *enlisted = Some(transaction);
        Ok(())
    }

    /// For the engine: the transaction of the handler, to complete it or roll it back.
    #[doc(hidden)]
    #[must_use]
    pub fn take_enlisted(&self) -> Option<Box<dyn Enlisted>> {
        lock(&self.0.enlisted).take()
    }
}

/// These locks guard plain data that a panic cannot leave half changed, so poisoning is ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("message_id", self.message_id())
            .field("topic", &self.topic())
            .field("group", &self.group())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}
