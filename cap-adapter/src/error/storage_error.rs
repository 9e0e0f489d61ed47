//! The errors of storages.

use std::fmt;

use super::BoxError;
use super::chain::error_chain;
use super::text::error_text;

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
