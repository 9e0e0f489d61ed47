//! The audit: what operators did to messages.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::storage::Side;

/// An act of an operator, to be recorded after it had an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewAct {
    /// Who acted.
    pub who: String,
    /// What was done: `rerun`, `edit`, `delete` or `cancel`. A newer version may have others.
    pub what: String,
    /// The table of the messages.
    pub side: Side,
    /// How many messages it had an effect on.
    pub count: u64,
    /// Their row ids, at most [`MOST_IDS`](Self::MOST_IDS) of them.
    pub ids: Vec<i64>,
    /// The body before an edit, or its first [`MOST_BYTES`](Self::MOST_BYTES).
    pub former_body: Option<Bytes>,
}

impl NewAct {
    /// The most row ids that an act keeps.
    pub const MOST_IDS: usize = 100;
    /// The most bytes of a former body that an act keeps.
    pub const MOST_BYTES: usize = 64 * 1024;
    /// How long a storage keeps acts: 90 days. It deletes older ones when it records another.
    pub const KEPT_FOR: Duration = Duration::from_secs(90 * 86_400);

    /// An act on these rows of one side.
    #[must_use]
    pub fn new(who: impl Into<String>, what: impl Into<String>, side: Side, ids: &[i64]) -> Self {
        Self {
            who: who.into(),
            what: what.into(),
            side,
            count: ids.len() as u64,
            ids: ids.iter().copied().take(Self::MOST_IDS).collect(),
            former_body: None,
        }
    }

    /// Adds the body before an edit, cut to [`MOST_BYTES`](Self::MOST_BYTES).
    #[must_use]
    pub fn former_body(mut self, body: &Bytes) -> Self {
        self.former_body = Some(body.slice(..body.len().min(Self::MOST_BYTES)));
        self
    }
}

/// A recorded act.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Act {
    /// Its number in the audit; later acts have higher ones.
    pub id: i64,
    /// When it was recorded, by the storage's clock.
    pub at: SystemTime,
    /// What was done.
    pub act: NewAct,
}

impl Act {
    /// An act with its number in the audit, recorded at this time.
    #[must_use]
    pub fn new(id: i64, at: SystemTime, act: NewAct) -> Self {
        Self { id, at, act }
    }
}
