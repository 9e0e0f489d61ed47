//! Transactions of the application, which the storage knows by number.

use std::collections::HashSet;

/// The number by which a storage identifies a transaction of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub i64);

/// The result of [`Storage::look_for`](crate::storage::Storage::look_for).
#[derive(Debug, Clone, Default)]
pub struct LookedFor {
    /// The transactions that have ended, committed or not.
    pub ended: HashSet<TransactionId>,
    /// The rows that exist.
    pub stored: HashSet<i64>,
}
