//! What this process has done to messages, and in whose name.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use cap_core::storage::Side;

/// The most acts that are kept.
const MOST_ACTS: usize = 500;
/// The most row ids of an act that are kept.
const MOST_IDS: usize = 20;

/// One act of a user.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    pub(crate) at: SystemTime,
    pub(crate) who: String,
    /// `rerun`, `edit`, `delete` or `cancel`.
    pub(crate) what: &'static str,
    pub(crate) side: Side,
    pub(crate) count: u64,
    /// The first row ids.
    pub(crate) ids: Vec<i64>,
}

/// The last acts.
#[derive(Debug, Default)]
pub(crate) struct AuditLog(Mutex<VecDeque<Act>>);

impl AuditLog {
    /// Keeps an act that had an effect.
    pub(crate) fn add(&self, who: &str, what: &'static str, side: Side, count: u64, ids: &[i64]) {
        if count == 0 {
            return;
        }
        let ids = ids.iter().copied().take(MOST_IDS).collect();
        let act = Act { at: SystemTime::now(), who: who.to_owned(), what, side, count, ids };
        let mut acts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        acts.push_front(act);
        acts.truncate(MOST_ACTS);
    }

    /// The last acts, newest first.
    pub(crate) fn all(&self) -> Vec<Act> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
