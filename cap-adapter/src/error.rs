//! The errors of the bus. Each says what failed, on what, and what to do; none contains a secret.

use std::fmt;

use thiserror::Error;

use crate::message::MessageId;

pub use crate::error_text::{LONGEST_ERROR, error_chain, error_text, json_error_text};

/// Any error, boxed: what a handler may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A topic or a group has a name that no broker or storage accepts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind} {name:?} {reason}")]
pub struct NameError {
    kind: &'static str,
    name: String,
    reason: String,
}

impl NameError {
    pub(crate) fn new(kind: &'static str, name: &str, reason: impl Into<String>) -> Self {
        // A name out of bounds may be a megabyte long; the error need not be.
        let mut name: String = name.chars().take(210).collect();
        if name.len() > 208 {
            name.push('…');
        }
        Self { kind, name, reason: reason.into() }
    }
}

/// The kind of a storage error, which decides what the bus does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// The storage cannot be reached, is overloaded, or aborted the call in favor of another transaction: the same
    /// call may succeed later. The bus waits and retries; no attempt is counted.
    Unavailable,
    /// The storage rejects this data (a value too long, a text that it cannot encode): the same call will never
    /// succeed. The bus splits a batch, so that only the invalid item fails.
    Refused,
    /// The storage is not usable without operator action: a missing privilege, a foreign or newer schema, an invalid
    /// setting. `start` fails with it. A running bus treats it as an outage that an operator must end, such as a
    /// revoked grant: messages wait and no attempt is counted.
    Unusable,
}

/// An error of a storage.
///
/// If the text already contains the text of its cause, [`source`](std::error::Error::source) returns the cause of
/// that, so that printing the whole chain repeats nothing.
#[derive(Debug)]
pub struct StorageError {
    kind: StorageErrorKind,
    store: &'static str,
    message: String,
    cause: Option<BoxError>,
    is_full: bool,
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.store, self.message)
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let mut cause = self.cause();
        while let Some(error) = cause.filter(|error| self.message.contains(&error.to_string())) {
            cause = error.source();
        }
        cause
    }
}

impl StorageError {
    /// Creates an error of the storage named `store`. The message is logged and stored, so it must not contain a
    /// secret. It is bounded and escaped by [`error_text`].
    pub fn new(kind: StorageErrorKind, store: &'static str, message: impl Into<String>) -> Self {
        Self { kind, store, message: error_text(message.into()), cause: None, is_full: false }
    }

    /// Sets the cause of this error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.cause = Some(source.into());
        self
    }

    /// Marks the error as a lack of space or connections: a message that fails with it is not considered invalid,
    /// however large it is, and waits.
    #[must_use]
    pub fn out_of_room(mut self) -> Self {
        self.is_full = true;
        self
    }

    /// Whether the storage is out of space or connections; see [`out_of_room`](Self::out_of_room).
    #[must_use]
    pub fn is_out_of_room(&self) -> bool {
        self.is_full
    }

    /// The cause of this error, to be examined by its type, whether or not the text already contains its text.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> StorageErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.kind == StorageErrorKind::Unavailable
    }

    /// Whether the storage rejected the data, so that the same call with other data would have succeeded.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.kind == StorageErrorKind::Refused
    }

    /// A copy of the error for another waiting caller, with its own kind; the causes are part of the text.
    #[doc(hidden)]
    #[must_use]
    pub fn retold(&self, kind: StorageErrorKind) -> Self {
        let text = error_chain(self);
        let named = text.strip_prefix(self.store).and_then(|text| text.strip_prefix(": "));
        Self { is_full: self.is_full, ..Self::new(kind, self.store, named.unwrap_or(&text)) }
    }
}

/// The kind of a transport error, which decides what the bus does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// The broker cannot be reached or did not reply in time: the outcome is unknown and the same call may succeed
    /// later. The bus waits and retries; no attempt is counted.
    Unavailable,
    /// The broker rejects this message or this declaration: a body too large, a queue that exists with different
    /// arguments. Counts as a failed attempt.
    Refused,
    /// The broker could not enqueue this message, which may be valid: a negative confirm, because a queue is full and
    /// rejects (`reject-publish`), or fails. The message waits in the storage and is sent again with growing pauses;
    /// no attempt is counted. `Health` names the topic meanwhile.
    DestinationFull,
    /// This message can never be sent: a header that the broker's protocol cannot represent, a body above the
    /// broker's limit. It is parked at the first attempt.
    Invalid,
    /// The settings of the transport are wrong, such as an invalid connection string. `start` fails with it.
    Unusable,
}

/// An error of a transport.
#[derive(Debug, Clone, Error)]
#[error("{transport}: {message}")]
pub struct TransportError {
    kind: TransportErrorKind,
    transport: &'static str,
    message: String,
    operator: bool,
}

impl TransportError {
    /// Creates an error of the transport named `transport`. The message is logged and stored, so it must not contain
    /// a secret. It is bounded and escaped by [`error_text`].
    pub fn new(kind: TransportErrorKind, transport: &'static str, message: impl Into<String>) -> Self {
        Self { kind, transport, message: error_text(message.into()), operator: false }
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later; the outcome of this one is unknown.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.kind == TransportErrorKind::Unavailable
    }

    /// Marks the error as one that lasts until an operator acts, such as a password that the broker rejects. The bus
    /// waits as in any outage, but logs an error.
    #[must_use]
    pub fn requiring_operator(mut self) -> Self {
        self.operator = true;
        self
    }

    /// Whether an operator must act: true for errors marked so, and for each that is not
    /// [`Unavailable`](TransportErrorKind).
    #[must_use]
    pub fn requires_operator(&self) -> bool {
        self.operator || !self.is_unavailable()
    }

    /// What went wrong, without the transport's name.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// The error of a bus that could not start. Every mistake that can be detected before the first message is reported
/// here.
///
/// Its `Debug` output equals its `Display` output, since that is what a `main` that returns it prints.
#[derive(Error)]
#[non_exhaustive]
pub enum StartError {
    /// The builder has no storage.
    #[error("no storage: call .storage(..), for instance with MemoryStorage::new()")]
    NoStorage,
    /// The builder has no transport.
    #[error("no transport: call .transport(..), for instance with MemoryTransport::new()")]
    NoTransport,
    /// The subscriptions contradict each other or need something that is missing. Each problem names its function.
    #[error("the subscriptions cannot be started:{}", bullets(.0))]
    Subscriptions(Vec<String>),
    /// An option is out of its range.
    #[error("option {option} {reason}")]
    Option {
        /// The option's name as in the configuration.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The storage is not usable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The transport is not usable.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn bullets(problems: &[String]) -> String {
    problems.iter().fold(String::new(), |text, problem| text + "\n  - " + problem)
}

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

/// Shows a type's name in errors without its path: `Vec<Order>` for `alloc::vec::Vec<shop::Order>`.
#[derive(Debug)]
pub struct ShortTypeName(pub &'static str);

impl fmt::Display for ShortTypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut word_start = 0;
        let bytes = self.0.as_bytes();
        for (index, byte) in bytes.iter().enumerate() {
            // Types inside of a function have it in their path, closures as `{{closure}}`.
            let in_path = byte.is_ascii_alphanumeric() || b"_:{}#".contains(byte);
            if !in_path {
                let word = &self.0[word_start..index];
                f.write_str(word.rsplit("::").next().unwrap_or(word))?;
                // A multi-byte character is written with its first byte's word; identifiers here are ASCII.
                f.write_str(self.0.get(index..=index).unwrap_or(""))?;
                word_start = index + 1;
            }
        }
        let word = &self.0[word_start..];
        f.write_str(word.rsplit("::").next().unwrap_or(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_lose_their_paths() {
        for (full, short) in [
            ("shop::Order", "Order"),
            ("alloc::vec::Vec<shop::Order>", "Vec<Order>"),
            ("(shop::a::B, &[core::option::Option<i32>])", "(B, &[Option<i32>])"),
            ("i32", "i32"),
            ("shop::tests::it::{{closure}}::Stock", "Stock"),
        ] {
            assert_eq!(ShortTypeName(full).to_string(), short);
        }
    }

    /// The error and its sources, as `anyhow` and others print them.
    fn whole(error: &(dyn std::error::Error + 'static)) -> String {
        let causes = std::iter::successors(error.source(), |error| error.source());
        causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    /// Issue 8, row 16.
    #[test]
    fn whoever_prints_the_whole_chain_reads_nothing_twice() {
        let storage = || {
            let cause = std::io::Error::other("disk full");
            StorageError::new(StorageErrorKind::Refused, "SQLite", "disk full (code 13)").with_source(cause)
        };
        let transport = || TransportError::new(TransportErrorKind::Unusable, "RabbitMQ", "disk full");
        let name = || NameError::new("topic", "a b", "disk full");
        let errors: [Box<dyn std::error::Error>; 6] = [
            Box::new(storage()),
            Box::new(PublishError::Storage { topic: "t".into(), source: storage() }),
            Box::new(PublishError::Name(name())),
            Box::new(StartError::Storage(storage())),
            Box::new(StartError::Transport(transport())),
            Box::new(crate::HandlerError::failed(PublishError::Storage {
                topic: "t".into(),
                source: storage(),
            })),
        ];
        for error in errors {
            let (whole, chain) = (whole(&*error), error_chain(&*error));
            assert_eq!(whole.matches("disk full").count(), 1, "{whole}");
            assert_eq!(chain, whole);
        }
        assert!(storage().cause().is_some_and(<dyn std::error::Error>::is::<std::io::Error>));
        let handler =
            crate::HandlerError::failed(PublishError::Storage { topic: "t".into(), source: storage() });
        assert!(handler.find::<std::io::Error>().is_some(), "it is found all the same");
        // What the text does not say yet is not left out.
        let silent = StorageError::new(StorageErrorKind::Refused, "SQLite", "no")
            .with_source(std::io::Error::other("why"));
        assert_eq!(whole(&silent), "SQLite: no: why");
    }

    #[test]
    fn a_name_error_stays_short() {
        let error = NameError::new("topic", &"y".repeat(1_000_000), "is long");
        assert!(error.to_string().len() < 300);
    }
}
