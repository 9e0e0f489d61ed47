//! The errors of the bus. Each says what failed, on what, and what to do; none names a secret.

use std::fmt;

use thiserror::Error;

use crate::message::MessageId;

pub use crate::error_text::{LONGEST_ERROR, error_chain, error_text, json_error_text};

/// Any error, boxed: what a handler may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A topic or a group has a name that no broker or store could hold.
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

/// What kind of trouble a store reports; it decides what the bus does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// The store cannot be reached, is overloaded, or gave way to another transaction: the same call may succeed
    /// later. The bus waits and tries again; nothing is counted as an attempt.
    Unavailable,
    /// The store refuses this data (a value too long, a text it cannot hold): the same call will never succeed.
    /// In a batch the bus tries the items one by one, so that only the bad one fails.
    Refused,
    /// The store is not what this bus needs: no permission, a foreign or newer schema, a bad setting.
    /// Start-up fails with it. A bus that runs already takes it as an outage that an operator must end, such as a grant
    /// that was revoked: no message is at fault, and everything waits.
    Unusable,
}

/// A store could not do what it was asked.
///
/// Its text says what its source says, where an adapter has put that into it; [`source`](std::error::Error::source) then
/// gives what lies behind that, so that whoever prints the whole chain reads nothing twice.
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
    /// An error of the store named `store`. The message is shown to people: no secret belongs in it. It is bounded and
    /// escaped as [`error_text`] does.
    pub fn new(kind: StorageErrorKind, store: &'static str, message: impl Into<String>) -> Self {
        Self { kind, store, message: error_text(message.into()), cause: None, is_full: false }
    }

    /// Keeps the error that this one comes from.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.cause = Some(source.into());
        self
    }

    /// Says that the storage has no room, or no connections, left: however large a message is that fails by it, the message
    /// is not at fault and waits.
    #[must_use]
    pub fn out_of_room(mut self) -> Self {
        self.is_full = true;
        self
    }

    /// Whether the storage has no room left; see [`out_of_room`](Self::out_of_room).
    #[must_use]
    pub fn is_out_of_room(&self) -> bool {
        self.is_full
    }

    /// The error that this one comes from, to be looked at by its type, whether or not the text says it already.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }

    /// What kind of trouble it is.
    #[must_use]
    pub fn kind(&self) -> StorageErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.kind == StorageErrorKind::Unavailable
    }

    /// Whether the data is at fault, so that the same call with other data would have succeeded.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.kind == StorageErrorKind::Refused
    }

    /// The same error for another of those who wait, as a kind of its own; the causes are part of the text.
    #[doc(hidden)]
    #[must_use]
    pub fn retold(&self, kind: StorageErrorKind) -> Self {
        let text = error_chain(self);
        let named = text.strip_prefix(self.store).and_then(|text| text.strip_prefix(": "));
        Self { is_full: self.is_full, ..Self::new(kind, self.store, named.unwrap_or(&text)) }
    }
}

/// What kind of trouble a broker reports; it decides what the bus does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// The broker cannot be reached, or did not answer in time: the outcome is unknown and the same call may
    /// succeed later. The bus waits and tries again; nothing is counted as an attempt.
    Unavailable,
    /// The broker refuses this message or this declaration: a body too large, a queue that exists with other
    /// arguments. Counted as a failed attempt.
    Refused,
    /// The broker could not place this message, and nothing is known against it: a negative confirm, since a queue is
    /// full and rejects (`reject-publish`), or fails. The message waits in the storage and is sent again with growing
    /// pauses; nothing is counted as an attempt. `Health` names the topic meanwhile.
    DestinationFull,
    /// This very message can never be sent, whoever tries it again: a header that the broker's protocol has no form
    /// for, a body above the broker's limit. Parked at the first attempt.
    Invalid,
    /// The transport's own settings are wrong, such as a connection string that is none. Start-up fails with it.
    Unusable,
}

/// A broker could not do what it was asked.
#[derive(Debug, Clone, Error)]
#[error("{transport}: {message}")]
pub struct TransportError {
    kind: TransportErrorKind,
    transport: &'static str,
    message: String,
    operator: bool,
}

impl TransportError {
    /// An error of the transport named `transport`. The message is shown to people: no secret belongs in it. It is
    /// bounded and escaped as [`error_text`] does.
    pub fn new(kind: TransportErrorKind, transport: &'static str, message: impl Into<String>) -> Self {
        Self { kind, transport, message: error_text(message.into()), operator: false }
    }

    /// What kind of trouble it is.
    #[must_use]
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later, with nothing known of this one.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.kind == TransportErrorKind::Unavailable
    }

    /// Says that it stays so until an operator acts, such as a password that the broker refuses. The bus waits as in any
    /// outage, but says so as an error.
    #[must_use]
    pub fn requiring_operator(mut self) -> Self {
        self.operator = true;
        self
    }

    /// Whether an operator must act: one that says so, and each that is not [`Unavailable`](TransportErrorKind).
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

/// A bus could not start. Every mistake that can be found before the first message is found here.
///
/// Its `Debug` form is its `Display` form: that is what a `main` that returns it shows.
#[derive(Error)]
#[non_exhaustive]
pub enum StartError {
    /// No store was given to the builder.
    #[error("no storage was given: call .storage(..), for instance with MemoryStorage::new()")]
    NoStorage,
    /// No transport was given to the builder.
    #[error("no transport was given: call .transport(..), for instance with MemoryTransport::new()")]
    NoTransport,
    /// The subscriptions contradict each other or need what is not there. Each problem names its function.
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
    /// The store is not usable as it is.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The transport is not usable as it is.
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

/// A message was not published. Unless the variant says otherwise, nothing was stored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic or the callback's topic has a bad name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A header that the bus writes itself was given, or a header or an id cannot be carried.
    #[error("header {name:?} of a message to {topic:?} {reason}")]
    Header {
        /// The topic published to.
        topic: String,
        /// The header at fault.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The payload has no JSON form.
    #[error("the payload for {topic:?} cannot be serialized: {reason}")]
    Payload {
        /// The topic published to.
        topic: String,
        /// What the serialiser said.
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
    /// The transport can never send the message: a header that the broker does not take, or too many of them.
    #[error("a message to {topic:?} can never be sent: {reason}")]
    Unsendable {
        /// The topic published to.
        topic: String,
        /// What the transport said: which part of the message, and what to do.
        reason: String,
    },
    /// The broker was to keep the message for a while, and this transport cannot have it do that.
    #[error(
        "a message to {topic:?} was to be delayed by the broker, and this transport cannot do that; use .delay(..), which the store does"
    )]
    NoBrokerDelay {
        /// The topic published to.
        topic: String,
    },
    /// A message of that id is in the outbox already.
    #[error("a message with the id {id} was published before and is still in the outbox")]
    DuplicateId {
        /// The id at fault.
        id: MessageId,
    },
    /// The bus has been shut down, or is being.
    #[error("the bus is shut down: a message to {topic:?} was not accepted")]
    ShutDown {
        /// The topic published to.
        topic: String,
    },
    /// The transaction given to `within` is of another store than the bus's own.
    #[error("this bus stores in {bus}; the transaction given to within(..) is not one of that store")]
    ForeignTransaction {
        /// The bus's store.
        bus: &'static str,
    },
    /// A handler's `Publisher` publishes with the handler's own success; it cannot do so in
    /// another transaction. Use the bus itself for that, as an argument of the type `Cap`.
    #[error(
        "a message to {topic:?} is published with its handler's success and cannot be given to a transaction; take the \
         bus itself as an argument of the handler (cap: Cap) and publish with that"
    )]
    WithinDelivery {
        /// The topic published to.
        topic: String,
    },
    /// A `Publisher` was used after its handler had returned, or had taken longer than its timeout:
    /// what it published before has left with the handler's success by then, or is dropped.
    #[error(
        "the handler whose success a message to {topic:?} was to leave with has ended; a task that outlives its handler \
         publishes with the bus itself (cap: Cap)"
    )]
    HandlerEnded {
        /// The topic published to.
        topic: String,
    },
    /// The store did not answer within `publish_timeout`: whether the message is stored is not known.
    #[error(
        "storing a message to {topic:?} took longer than publish_timeout ({timeout:?}); it may or may not be stored"
    )]
    TimedOut {
        /// The topic published to.
        topic: String,
        /// The option's value.
        timeout: std::time::Duration,
    },
    /// The store failed. If it [was away](StorageError::is_unavailable), as when the bus was shut down over it,
    /// whether the message is stored is not known.
    #[error("a message to {topic:?} could not be stored: {}", error_chain(.source))]
    Storage {
        /// The topic published to.
        topic: String,
        /// What the store said, which is part of the text. So it is no [source](std::error::Error::source) that whoever
        /// prints the whole chain would read again; the raw name tells the derive so.
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
