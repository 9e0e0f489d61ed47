//! The secret that the nodes of one storage share.

use std::fmt;

/// A secret of 256 random bits that all nodes of one storage share; see
/// [`Storage::shared_key`](crate::storage::Storage::shared_key).
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey([u8; Self::LENGTH]);

impl SharedKey {
    /// How many bytes it has.
    pub const LENGTH: usize = 32;

    /// A key of these bytes, which the operating system has drawn at random.
    #[must_use]
    pub const fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// A key as a storage has kept it; `None` if it is not one.
    #[must_use]
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, for a storage to keep.
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
