//! The error of a message that was not published.

use thiserror::Error;

use super::chain::error_chain;
use super::storage_error::StorageError;
use crate::message::{MessageId, NameError};

/// The error of a message that was not published. Unless the variant says otherwise, nothing was stored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic or the callback topic has an invalid name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The message has a header that is reserved for the bus, or a header or an id that cannot be sent.
    #[error("header {name:?} of a message to {topic:?} {reason}")]
    Header {
        /// The topic published to.
        topic: String,
        /// The rejected header.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The payload cannot be serialized to JSON.
    #[error("the payload for {topic:?} cannot be serialized: {reason}")]
    Payload {
        /// The topic published to.
        topic: String,
        /// The error of the serializer.
        reason: String,
    },
    /// Headers and body together are larger than the option `max_message_size`.
    #[error("the message for {topic:?} takes {size} bytes; max_message_size allows {limit}")]
    TooLarge {
        /// The topic published to.
        topic: String,
        /// Bytes of headers and body.
        size: usize,
        /// The option's value.
        limit: usize,
    },
    /// The transport can never send the message: the broker does not accept one of its headers, or there are too
    /// many.
    #[error("a message to {topic:?} can never be sent: {reason}")]
    Unsendable {
        /// The topic published to.
        topic: String,
        /// The transport's error: which part of the message, and what to do.
        reason: String,
    },
    /// The message was to be delayed at the broker, which this transport does not support.
    #[error(
        "message to {topic:?}: this transport does not support delay_at_broker; use .delay(..), which the storage provides"
    )]
    NoBrokerDelay {
        /// The topic published to.
        topic: String,
    },
    /// A message with this id is already in the outbox.
    #[error("a message with the id {id} was published before and is still in the outbox")]
    DuplicateId {
        /// The id that is in use.
        id: MessageId,
    },
    /// The bus has been shut down or is shutting down.
    #[error("the bus is shut down: message to {topic:?} not accepted")]
    ShutDown {
        /// The topic published to.
        topic: String,
    },
    /// The transaction given to `within` belongs to another storage than that of the bus.
    #[error("this bus uses {bus} as storage; the transaction given to within(..) does not belong to it")]
    ForeignTransaction {
        /// The storage of the bus.
        bus: &'static str,
    },
    /// A message that was added to a batch was made by another bus, or by a handler's `Publisher`, which publishes with the
    /// handler's success.
    #[error("the message to {topic:?} is not of the bus of this batch; make it with the same Cap")]
    OtherBus {
        /// The topic published to.
        topic: String,
    },
    /// A handler's `Publisher` publishes with the handler's success and cannot use another transaction. Use the bus
    /// for that, as an argument of the type `Cap`.
    #[error(
        "a Publisher cannot publish to {topic:?} in another transaction; take the bus as an argument of the \
         handler (cap: Cap) and publish with it"
    )]
    WithinDelivery {
        /// The topic published to.
        topic: String,
    },
    /// A `Publisher` was used after its handler had finished or timed out. What it published before was sent with the
    /// handler's success, or dropped.
    #[error(
        "cannot publish to {topic:?}: the handler of this Publisher has already finished; in a spawned task, \
         publish with the bus (cap: Cap)"
    )]
    HandlerEnded {
        /// The topic published to.
        topic: String,
    },
    /// The storage did not reply within `publish_timeout`: it is unknown whether the message is stored.
    #[error(
        "storing a message to {topic:?} took longer than publish_timeout ({timeout:?}); it is unknown whether it is stored"
    )]
    TimedOut {
        /// The topic published to.
        topic: String,
        /// The option's value.
        timeout: std::time::Duration,
    },
    /// The storage failed. If it was [unavailable](StorageError::is_unavailable), or the bus was shut down meanwhile,
    /// it is unknown whether the message is stored.
    #[error("a message to {topic:?} could not be stored: {}", error_chain(.source))]
    Storage {
        /// The topic published to.
        topic: String,
        /// The storage's error, which is part of the text. So it is not a [source](std::error::Error::source), which
        /// printing the whole chain would repeat; the raw identifier tells the derive so.
        r#source: StorageError,
    },
}
