//! How an outcome changes a row.

use std::sync::Arc;

use super::row::{Attempt, Moment, Row, State};
use super::table::Table;
use cap_adapter::storage::{Lease, Owner, Reason, Retention, RowOutcome, Status};

impl Table {
    /// Applies an outcome, and returns whether the lease was valid.
    pub(super) fn complete(
        &mut self,
        now: Moment,
        owner: &Owner,
        lease: Lease,
        outcome: &RowOutcome,
    ) -> bool {
        if !self.is_held_under(lease) {
            return false;
        }
        if matches!(outcome, RowOutcome::Succeeded { retention: Retention::Delete, reason: None }) {
            self.delete(lease.id);
        } else {
            self.change(lease.id, |row| apply(row, now, owner, outcome));
        }
        true
    }
}

fn apply(row: &mut Row, now: Moment, owner: &Owner, outcome: &RowOutcome) {
    match outcome {
        RowOutcome::Succeeded { retention, reason } => succeed(row, now, *retention, *reason),
        RowOutcome::Retry { after, hold, error } => {
            let next = if *hold { now } else { now.saturating_add(*after) };
            let Some(state) = retry(row, now, owner, error, next) else { return };
            if *hold {
                state.hold(&owner.node, now.saturating_add(owner.lease));
            } else {
                state.let_go(Some(next));
            }
        }
        RowOutcome::RetryAtBroker { after, spare, error } => {
            let next = now.saturating_add(*after);
            let Some(state) = retry(row, now, owner, error, next) else { return };
            state.let_go(Some(next.saturating_add(*spare)));
        }
        RowOutcome::Failed { reason, error, counted, keep, notify } => {
            if *counted {
                count_attempt(row, now, owner, error, None);
            }
            let Some(state) = &mut row.state else { return };
            state.status = Status::Failed;
            state.reason = Some(*reason);
            state.last_error = Some(error.clone());
            state.expires = Some(now.saturating_add(*keep));
            state.notice = *notify;
            if *notify {
                state.hold(&owner.node, now.saturating_add(owner.lease));
            } else {
                state.let_go(None);
            }
        }
        RowOutcome::Notified => {
            let Some(state) = &mut row.state else { return };
            state.notice = false;
            state.let_go(None);
        }
        RowOutcome::Release { after } => {
            let due = if after.is_zero() { row.added } else { now.saturating_add(*after) };
            let Some(state) = &mut row.state else { return };
            state.let_go(Some(due));
        }
    }
}

fn succeed(row: &mut Row, now: Moment, retention: Retention, reason: Option<Reason>) {
    let expires = match retention {
        Retention::Keep(keep) => Some(now.saturating_add(keep)),
        Retention::Forget if reason.is_none() => {
            row.state = None;
            return;
        }
        // A row with something to record is kept as long as one without, or until the collector runs.
        Retention::Forget => None,
        Retention::Delete => Some(now),
    };
    let Some(state) = &mut row.state else { return };
    state.status = Status::Succeeded;
    state.reason = reason;
    state.expires = expires;
    state.notice = false;
    state.let_go(None);
}

/// Records a failed attempt that is followed by another.
fn retry<'a>(
    row: &'a mut Row,
    now: Moment,
    owner: &Owner,
    error: &str,
    next: Moment,
) -> Option<&'a mut State> {
    count_attempt(row, now, owner, error, Some(next));
    let state = row.state.as_mut()?;
    state.status = Status::Retrying;
    // The row may have had a pending notice and an expiry; unfinished rows never expire.
    (state.reason, state.expires, state.notice) = (None, None, false);
    Some(state)
}

fn count_attempt(row: &mut Row, now: Moment, owner: &Owner, error: &str, next: Option<Moment>) {
    let Some(state) = &mut row.state else { return };
    state.attempts = state.attempts.saturating_add(1);
    state.last_error = Some(error.to_owned());
    row.attempts.push(Attempt {
        at: now,
        node: Arc::clone(&owner.node),
        error: error.to_owned(),
        next,
        crash: None,
    });
}
