//! What a table of the store in memory holds: a message, and its state as long as it has one.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::message::Message;
use cap_adapter::storage::{Digest, Holder, Reason, Status};

/// A point in time: how long after the store was made.
pub(super) type Moment = Duration;

/// The rows that one claim looks at together: those of one version and one group.
pub(super) type Lane = (Arc<str>, Arc<str>);

/// A stored message.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) version: Arc<str>,
    /// The receiving group; empty in the outbox.
    pub(super) group: Arc<str>,
    pub(super) message: Arc<Message>,
    /// The message id that no other row of the group has: the message's, or one of the row's own.
    pub(super) message_id: Option<String>,
    pub(super) digest: Option<Digest>,
    pub(super) added: Moment,
    /// How often it was claimed. It outlives the state, so that no lease from before a re-run is ever valid again.
    pub(super) epoch: i32,
    /// None: succeeded, with nothing to tell.
    pub(super) state: Option<State>,
    pub(super) attempts: Vec<Attempt>,
}

/// The state of a message that is not simply done.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) status: Status,
    pub(super) reason: Option<Reason>,
    pub(super) attempts: u32,
    pub(super) attempts_before_rerun: u32,
    pub(super) reruns: u32,
    pub(super) last_error: Option<String>,
    /// From then on anyone may claim it; never, if there is none.
    pub(super) due: Option<Moment>,
    pub(super) owner: Option<Arc<str>>,
    pub(super) expires: Option<Moment>,
    /// It failed for good and only the notice to an operator is due.
    pub(super) notice: bool,
    /// How often the process has died while its handler ran.
    pub(super) crashes: u32,
    /// The start of a suspect's handler that was noted last, and under which epoch.
    pub(super) started: Option<Started>,
}

/// The start of a suspect's handler.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    pub(super) epoch: i32,
    pub(super) alone: bool,
}

/// A failed attempt. Its number is its place among those that are no crashes.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) at: Moment,
    pub(super) node: Arc<str>,
    pub(super) error: String,
    /// When the next one was due then, if there was to be one.
    pub(super) next: Option<Moment>,
    /// The process died: under the lease with this epoch.
    pub(super) crash: Option<i32>,
}

impl State {
    /// A state in which nobody works on the row and nothing has happened yet.
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

    /// Gives the row to a node for the length of a lease.
    pub(super) fn hold(&mut self, node: &Arc<str>, until: Moment) {
        self.owner = Some(Arc::clone(node));
        self.due = Some(until);
    }

    /// Takes the row from whoever has it; from `due` on anyone may claim it.
    pub(super) fn let_go(&mut self, due: Option<Moment>) {
        self.owner = None;
        self.due = due;
    }

    /// Whether somebody works on the row right now. Telling an operator of a failure is not work: they may act on it.
    pub(super) fn is_held(&self, now: Moment) -> bool {
        self.status != Status::Failed && self.owner.is_some() && self.due.is_some_and(|due| due > now)
    }
}

impl Row {
    pub(super) fn lane(&self) -> Lane {
        (Arc::clone(&self.version), Arc::clone(&self.group))
    }

    /// Whether the row holds this very message for this group, as when an insert is repeated.
    pub(super) fn holds(&self, group: &str, message: &Arc<Message>) -> bool {
        *self.group == *group && (Arc::ptr_eq(&self.message, message) || self.message == *message)
    }

    /// Where the message stands.
    pub(super) fn status(&self) -> Status {
        self.state.as_ref().map_or(Status::Succeeded, |state| state.status)
    }

    /// The row as a message meets it that came under its id.
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
