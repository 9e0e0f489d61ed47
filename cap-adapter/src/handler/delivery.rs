//! One message on its way through one handler.

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

/// One message on its way through one handler: what arguments are taken from, and what layers see.
///
/// Cheap to clone; all clones are the same delivery.
#[derive(Clone)]
pub struct Delivery(Arc<Inner>);

struct Inner {
    parts: DeliveryParts,
    message_id: MessageId,
    enlisted: Mutex<Option<Box<dyn Enlisted>>>,
}

/// What a delivery is made of.
#[derive(Clone)]
pub struct DeliveryParts {
    /// The message as received, with the headers that the inbox adds.
    pub message: Arc<Message>,
    /// Its topic, without what the bus puts before it.
    pub topic: Arc<str>,
    /// The full name of the group.
    pub group: Arc<str>,
    /// From 1.
    pub attempt: u32,
    /// The application's values.
    pub states: Arc<States>,
    /// The bus's storage.
    pub storage: Arc<dyn Any + Send + Sync>,
    /// Whether an error may quote the body.
    pub payload_in_errors: bool,
    /// Fires when the handler should stop early.
    pub cancelled: CancellationToken,
    /// How long the handler may take.
    pub timeout: Option<Duration>,
    /// What the engine keeps with this attempt.
    pub engine: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for DeliveryParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryParts").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// A transaction in which a handler works, opened by one of its arguments (such as `PgTx`).
///
/// When the handler has succeeded, the bus gives it the outcome of the message: it writes that in the same
/// transaction and commits, so that the handler's effects, the mark on the message, the callback and everything
/// published through `Publisher` happen together or not at all.
pub trait Enlisted: Send {
    /// Writes the outcome and commits. `false` when the lease no longer held; then everything is rolled back.
    ///
    /// # Errors
    ///
    /// When the store failed, or the handler still holds on to the transaction. Everything is rolled back, save
    /// that after a connection lost during the commit nobody knows; the outcome's lease tells later.
    fn complete(self: Box<Self>, completion: Completion) -> BoxFuture<'static, Result<bool, StorageError>>;

    /// Rolls back, as the handler has failed.
    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// What an [`Enlisted`] transaction has to write.
#[derive(Debug)]
pub struct Completion {
    /// In whose name.
    pub owner: Owner,
    /// The inbox row's outcome and the messages to publish with it.
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

    /// The topic as the sender named it.
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

    /// Fires when the handler should stop early; see [`Cancelled`](crate::Cancelled).
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.0.parts.cancelled
    }

    /// How long the handler may take, the making of its arguments included; `None` for as long as it likes.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.0.parts.timeout
    }

    /// A value that the application gave to the builder.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.parts.states.get()
    }

    /// The instance whose method is the handler. Its presence was checked at start-up. For the macros.
    #[doc(hidden)]
    pub fn instance<T: Send + Sync + 'static>(&self) -> Result<Arc<T>, HandlerError> {
        self.state()
            .ok_or_else(|| HandlerError::permanent(format!("no instance of {}", std::any::type_name::<T>())))
    }

    /// The bus's store as itself, for an adapter's own arguments.
    #[must_use]
    pub fn storage(&self) -> &dyn Any {
        &*self.0.parts.storage
    }

    /// Makes a transaction part of this delivery. At most one: a second is refused and given back.
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

    /// For the engine: the transaction that the handler works in, to complete or abandon it.
    #[doc(hidden)]
    #[must_use]
    pub fn take_enlisted(&self) -> Option<Box<dyn Enlisted>> {
        lock(&self.0.enlisted).take()
    }
}

/// These locks guard plain data that no panic leaves half-changed.
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
