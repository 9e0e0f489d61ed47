//! The secret shared by the nodes of one storage.

use std::fmt;

/// A secret of 256 random bits, shared by all nodes of one storage; see
/// [`Storage::shared_key`](crate::storage::Storage::shared_key).
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey([u8; Self::LENGTH]);

impl SharedKey {
    /// Its length in bytes.
    pub const LENGTH: usize = 32;

    /// Creates a key from these bytes, which the operating system's random generator has produced.
    #[must_use]
    pub const fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// Reads a key from its stored bytes; `None` if they are not a key.
    #[must_use]
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(..)")
    }
}
