//! What a outcome makes of a row of the model.

use std::time::Duration;

use cap_core::storage::{Owner, Retention, RowOutcome, Status};

use crate::model::{ModelAttempt, ModelRow, ModelState, Moment};

/// Applies it to a row whose lease holds.
pub(crate) fn apply(row: &mut ModelRow, now: Moment, owner: &Owner, outcome: &RowOutcome) {
    let added = row.added;
    let attempt = |error: &String, next: Option<Duration>| ModelAttempt {
        node: owner.node.to_string(),
        error: error.clone(),
        next,
    };
    let Some(state) = &mut row.state else { return };
    // Every outcome but those that hold the row lets it go.
    state.owner = None;
    state.due = None;
    let hold = |state: &mut ModelState| {
        state.owner = Some(owner.node.to_string());
        state.due = Some(now + owner.lease);
    };
    match outcome {
        RowOutcome::Succeeded { retention, reason } => {
            state.status = Status::Succeeded;
            state.reason = *reason;
            state.expires = match retention {
                Retention::Forget => None,
                Retention::Keep(keep) => Some(now + *keep),
                Retention::Delete => Some(now),
            };
            if *retention == Retention::Forget && reason.is_none() {
                row.state = None;
            }
        }
        RowOutcome::Retry { after, hold: holds, error } => {
            state.status = Status::Retrying;
            (state.reason, state.expires) = (None, None);
            state.error = Some(error.clone());
            state.due = Some(now + *after);
            if *holds {
                hold(state);
            }
            row.attempts.push(attempt(error, Some(if *holds { Duration::ZERO } else { *after })));
        }
        RowOutcome::RetryAtBroker { after, spare, error } => {
            state.status = Status::Retrying;
            (state.reason, state.expires) = (None, None);
            state.error = Some(error.clone());
            state.due = Some(now + *after + *spare);
            row.attempts.push(attempt(error, Some(*after)));
        }
        RowOutcome::Failed { reason, error, counted, keep, notify } => {
            state.status = Status::Failed;
            state.reason = Some(*reason);
            state.error = Some(error.clone());
            state.expires = Some(now + *keep);
            if *notify {
                hold(state);
            }
            if *counted {
                row.attempts.push(attempt(error, None));
            }
        }
        RowOutcome::Notified => {}
        RowOutcome::Release { after } => {
            state.due = Some(if after.is_zero() { added } else { now + *after });
        }
    }
}
