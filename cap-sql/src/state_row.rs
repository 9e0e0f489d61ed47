//! How a state row begins, and what an outcome changes in it.
//!
//! Times are spans from now, in microseconds: the clock is the database's, or that of its one machine.

use std::borrow::Cow;

use cap_adapter::storage::{Entry, NewOutgoing, Owner, Reason, Retention, RowOutcome};

use crate::checks::without_nul;
use crate::columns::{DELAYED, FAILED, RETRYING, SCHEDULED, SUCCEEDED, micros};

/// How the state row of a new message begins.
#[derive(Debug)]
#[non_exhaustive]
pub struct FirstState<'a> {
    /// The code of the status.
    pub status: i16,
    /// Whether the inserting node leases the row, with epoch 1. Otherwise the epoch is 0, and the row has no owner.
    pub leased: bool,
    /// When the row is due; `None` for never.
    pub wait: Option<i64>,
    /// Why it has failed, if it has.
    pub reason: Option<&'static str>,
    /// What went wrong, as errors are stored.
    pub error: Option<Cow<'a, str>>,
    /// How long it is kept, if that is fixed.
    pub keep: Option<i64>,
}

impl<'a> FirstState<'a> {
    /// The state of a published message.
    #[must_use]
    pub fn of_outgoing(new: &NewOutgoing, owner: &Owner) -> Self {
        let leased = new.held && new.delay.is_none();
        let wait = match new.delay {
            Some(delay) => micros(delay),
            None if leased => micros(owner.lease),
            None => 0,
        };
        let status = if new.delay.is_some() { DELAYED } else { SCHEDULED };
        Self { status, leased, wait: Some(wait), reason: None, error: None, keep: None }
    }

    /// The state of a received message.
    #[must_use]
    pub fn of_incoming(entry: &'a Entry, owner: &Owner) -> Self {
        let lease = micros(owner.lease);
        match entry {
            Entry::Scheduled { held } => Self {
                status: SCHEDULED,
                leased: *held,
                wait: Some(if *held { lease } else { 0 }),
                reason: None,
                error: None,
                keep: None,
            },
            Entry::Parked { reason, error, keep, notify } => Self {
                status: FAILED,
                leased: *notify,
                wait: notify.then_some(lease),
                reason: Some(reason.as_str()),
                error: Some(without_nul(error)),
                keep: Some(micros(*keep)),
            },
        }
    }

    /// Whether any node may claim the row now: the others should know.
    #[must_use]
    pub fn leaves_work(&self) -> bool {
        !self.leased && self.wait.is_some()
    }
}

/// Which statement an outcome takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletionKind {
    /// The state row changes.
    Change,
    /// The state row goes, the message stays.
    Forget,
    /// The message goes with all that belongs to it.
    Delete,
}

impl CompletionKind {
    /// All kinds, in the order in which a batch applies them.
    pub const ALL: [Self; 3] = [Self::Change, Self::Forget, Self::Delete];

    /// The kind of an outcome.
    #[must_use]
    pub fn of(outcome: &RowOutcome) -> Self {
        match outcome {
            RowOutcome::Succeeded { retention: Retention::Forget, reason: None } => Self::Forget,
            RowOutcome::Succeeded { retention: Retention::Delete, reason: None } => Self::Delete,
            _ => Self::Change,
        }
    }
}

/// From when on a row may be claimed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Due {
    /// Never by itself.
    #[default]
    Never,
    /// Since its message was added.
    SinceAdded,
    /// After this many microseconds.
    After(i64),
    /// After this many microseconds, unless the broker has delivered its copy before.
    WithoutBroker(i64),
}

/// What a state row is changed to. By default no node has the row, it is never due, and the rest stays as it was.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct StateChange<'a> {
    /// The code of the status; `None` if it stays as it was, with its reason and expiry.
    pub status: Option<i16>,
    /// Whether an attempt was made that counts, and is recorded.
    pub counted: bool,
    /// When the row is due.
    pub due: Due,
    /// Whether the node keeps its lease.
    pub leased: bool,
    /// Why it is as it is.
    pub reason: Option<&'static str>,
    /// What went wrong, as errors are stored.
    pub error: Option<Cow<'a, str>>,
    /// How long it is kept, if that is fixed.
    pub keep: Option<i64>,
    /// When the next attempt is due, to be recorded with the one that failed.
    pub next: Option<i64>,
}

impl<'a> StateChange<'a> {
    /// The change of a row that cannot be read: it has failed, and stays until an operator has seen it.
    #[must_use]
    pub fn corrupt(error: &'a str) -> Self {
        let reason = Some(Reason::Corrupt.as_str());
        Self { status: Some(FAILED), reason, error: Some(without_nul(error)), ..Self::default() }
    }

    /// The change that an outcome makes.
    #[must_use]
    pub fn of(outcome: &'a RowOutcome, owner: &Owner) -> Self {
        match outcome {
            RowOutcome::Succeeded { retention, reason } => Self {
                status: Some(SUCCEEDED),
                reason: reason.map(Reason::as_str),
                keep: match retention {
                    Retention::Keep(keep) => Some(micros(*keep)),
                    // Kept for its reason for as long as a message without a state row, or until the collector runs.
                    Retention::Forget => None,
                    Retention::Delete => Some(0),
                },
                ..Self::default()
            },
            RowOutcome::Retry { after, hold, error } => Self {
                status: Some(RETRYING),
                counted: true,
                due: Due::After(micros(if *hold { owner.lease } else { *after })),
                leased: *hold,
                error: Some(without_nul(error)),
                next: Some(if *hold { 0 } else { micros(*after) }),
                ..Self::default()
            },
            RowOutcome::RetryAtBroker { after, spare, error } => Self {
                status: Some(RETRYING),
                counted: true,
                due: Due::WithoutBroker(micros(after.saturating_add(*spare))),
                error: Some(without_nul(error)),
                next: Some(micros(*after)),
                ..Self::default()
            },
            RowOutcome::Failed { reason, error, counted, keep, notify } => Self {
                status: Some(FAILED),
                counted: *counted,
                due: if *notify { Due::After(micros(owner.lease)) } else { Due::Never },
                leased: *notify,
                reason: Some(reason.as_str()),
                error: Some(without_nul(error)),
                keep: Some(micros(*keep)),
                ..Self::default()
            },
            RowOutcome::Notified => Self::default(),
            RowOutcome::Release { after } => {
                let due = if after.is_zero() { Due::SinceAdded } else { Due::After(micros(*after)) };
                Self { due, ..Self::default() }
            }
        }
    }

    /// After how many microseconds the row is due, if that is a span from now.
    #[must_use]
    pub fn wait(&self) -> Option<i64> {
        match self.due {
            Due::After(wait) | Due::WithoutBroker(wait) => Some(wait),
            Due::Never | Due::SinceAdded => None,
        }
    }

    /// Whether other nodes should know when the row is due. What the broker keeps concerns them only if it does not come, and
    /// they find that out by themselves.
    #[must_use]
    pub fn leaves_work(&self) -> bool {
        !self.leased && matches!(self.due, Due::SinceAdded | Due::After(_))
    }
}
