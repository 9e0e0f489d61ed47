//! Requests to claim rows, and claimed rows.

use std::sync::Arc;
use std::time::Duration;

use super::row::{Lease, Reason, Side};
use crate::message::Message;

/// A request to claim rows. The engine makes it; tests of an adapter use [`new`](Self::new).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClaimRequest {
    /// Which table.
    pub side: Side,
    /// For the inbox: only rows of these groups. Ignored for the outbox.
    pub groups: Vec<Arc<str>>,
    /// The maximum number of rows.
    pub limit: usize,
    /// The maximum number of bytes of all bodies together. The first row is claimed even if its body is larger. A storage may
    /// claim less, but at least one row. By default there is no limit.
    pub bytes: usize,
}

impl ClaimRequest {
    /// A request for at most `limit` rows of any size.
    #[must_use]
    pub fn new(side: Side, groups: Vec<Arc<str>>, limit: usize) -> Self {
        Self { side, groups, limit, bytes: usize::MAX }
    }

    /// Limits the bytes of all bodies together.
    #[must_use]
    pub fn within(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }
}

/// Claimed rows, the longest due first.
#[derive(Debug, Default)]
pub struct Claims {
    /// The rows, each under a new lease.
    pub rows: Vec<Claimed>,
    /// How long until the next row of these groups that was not claimed becomes due; zero if some are due but were
    /// left out by the limit or their size. `None` if there is none. Leases of other nodes count, since they may
    /// expire.
    pub next_due: Option<Duration>,
}

/// A claimed row.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The new lease.
    pub lease: Lease,
    /// The message as it was stored.
    pub message: Arc<Message>,
    /// The receiving group; empty for the outbox.
    pub group: Arc<str>,
    /// The number of failed attempts over the whole life of the message.
    pub attempts: u32,
    /// Of those, the attempts that failed before an operator last re-ran it; retry policies count from here.
    pub attempts_before_rerun: u32,
    /// How long ago the message was stored.
    pub age: Duration,
    /// Set if the row has failed for good and only its failure callback is due, with this reason and error. It must
    /// not be processed.
    pub notice: Option<(Reason, String)>,
    /// How many times the process died while handling this message, since an operator last re-ran it. Separate from
    /// [`attempts`](Self::attempts), which a policy counts.
    pub crashes: u32,
    /// Set if the previous lease expired without a release. Only in the inbox, and never together with a notice.
    pub suspect: Option<Suspect>,
}

/// A row whose last lease expired without a release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspect {
    /// Whether a handler's start was recorded for it before, under any lease. It then runs while no other suspect of
    /// the node does, so that a crash can be attributed to it.
    pub started_before: bool,
    /// The node that died, if this claim counted a crash.
    pub crashed: Option<Arc<str>>,
}

/// Records that the handler of a suspect is about to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartMark {
    /// The lease of the attempt.
    pub lease: Lease,
    /// Whether no other suspect runs on this node meanwhile. Only then does an expired lease count a crash.
    pub alone: bool,
}

/// The error text of a recorded crash, for storages: `process died while handling, node <name>`.
#[must_use]
pub fn crash_text(node: &str) -> String {
    format!("process died while handling, node {node}")
}
