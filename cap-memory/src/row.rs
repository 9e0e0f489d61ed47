//! The rows of the in-memory tables: a message, and its state as long as it has one.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::message::Message;
use cap_adapter::storage::{Digest, Holder, Reason, Status};

/// A point in time, as the time since the storage was created.
pub(super) type Moment = Duration;

/// A queue of rows that are claimed together: those of one version and one group.
pub(super) type Lane = (Arc<str>, Arc<str>);

/// A stored message.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) version: Arc<str>,
    /// The receiving group; empty in the outbox.
    pub(super) group: Arc<str>,
    pub(super) message: Arc<Message>,
    /// The message id, unique in the group: the message's, or a generated one.
    pub(super) message_id: Option<String>,
    pub(super) digest: Option<Digest>,
    pub(super) added: Moment,
    /// How many times it was claimed. Kept when the state is removed, so that no lease from before a re-run is ever
    /// valid again.
    pub(super) epoch: i32,
    /// `None` if it succeeded with nothing to record.
    pub(super) state: Option<State>,
    pub(super) attempts: Vec<Attempt>,
}

/// The state of a message that is unfinished or has something to record.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) status: Status,
    pub(super) reason: Option<Reason>,
    pub(super) attempts: u32,
    pub(super) attempts_before_rerun: u32,
    pub(super) reruns: u32,
    pub(super) last_error: Option<String>,
    /// The time from which any node may claim it; `None` for never.
    pub(super) due: Option<Moment>,
    pub(super) owner: Option<Arc<str>>,
    pub(super) expires: Option<Moment>,
    /// Whether it failed for good and only the failure callback is due.
    pub(super) notice: bool,
    /// How many times the process died while its handler ran.
    pub(super) crashes: u32,
    /// The last recorded start of its handler as a suspect, with the epoch.
    pub(super) started: Option<Started>,
}

/// A recorded start of a suspect's handler.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    pub(super) epoch: i32,
    pub(super) alone: bool,
}

/// A failed attempt. Its number is its position among the attempts that are not crashes.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) at: Moment,
    pub(super) node: Arc<str>,
    pub(super) error: String,
    /// When the next attempt was due, if there was one.
    pub(super) next: Option<Moment>,
    /// Set if this is a crash: the epoch of the lease under which the process died.
    pub(super) crash: Option<i32>,
}

impl State {
    /// The initial state, without an owner.
    pub(super) fn fresh(status: Status, due: Option<Moment>) -> Self {
        Self {
            status,
            reason: None,
            attempts: 0,
            attempts_before_rerun: 0,
            reruns: 0,
            last_error: None,
            due,
            owner: None,
            expires: None,
            notice: false,
            crashes: 0,
            started: None,
        }
    }

    /// Leases the row to a node.
    pub(super) fn hold(&mut self, node: &Arc<str>, until: Moment) {
        self.owner = Some(Arc::clone(node));
        self.due = Some(until);
    }

    /// Removes the owner of the row; from `due` on any node may claim it.
    pub(super) fn let_go(&mut self, due: Option<Moment>) {
        self.owner = None;
        self.due = due;
    }

    /// Whether a node is working on the row. A pending failure callback does not count: operators may act on the row.
    pub(super) fn is_held(&self, now: Moment) -> bool {
        self.status != Status::Failed && self.owner.is_some() && self.due.is_some_and(|due| due > now)
    }
}

impl Row {
    pub(super) fn lane(&self) -> Lane {
        (Arc::clone(&self.version), Arc::clone(&self.group))
    }

    /// Whether the row has exactly this message and group, as after a repeated insert.
    pub(super) fn holds(&self, group: &str, message: &Arc<Message>) -> bool {
        *self.group == *group && (Arc::ptr_eq(&self.message, message) || self.message == *message)
    }

    /// The status of the message.
    pub(super) fn status(&self) -> Status {
        self.state.as_ref().map_or(Status::Succeeded, |state| state.status)
    }

    /// The row in the form that is compared with a message of the same id.
    pub(super) fn as_holder(&self) -> Holder {
        let state = self.state.as_ref();
        Holder {
            digest: self.digest,
            status: self.status(),
            reason: state.and_then(|state| state.reason),
            attempts: state.map_or(0, |state| state.attempts),
            reruns: state.map_or(0, |state| state.reruns),
            epoch: self.epoch,
        }
    }

    pub(super) fn is_held(&self, now: Moment) -> bool {
        self.state.as_ref().is_some_and(|state| state.is_held(now))
    }
}
