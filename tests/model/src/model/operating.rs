//! What operators do in the model, and the collector.

use std::time::Duration;

use cap_core::monitor::{Among, Change};
use cap_core::storage::{Reason, Side, Status};

use super::{Model, ModelState, Moment};

impl Model {
    /// Makes a row due at once, with its message changed.
    pub fn rerun(&mut self, now: Moment, side: Side, id: i64, among: Among, change: &Change) -> bool {
        let row = self.row_mut(side, id).filter(|row| row.is_among(among) && !row.is_held(now));
        let Some(row) = row else { return false };
        row.change(change);
        let mut state = ModelState::new(Status::Scheduled, now);
        state.attempts_before_rerun = row.attempts.len();
        state.reruns = 1;
        if let Some(old) = row.state.take() {
            state.error = old.error;
            state.reruns += old.reruns;
        }
        row.state = Some(state);
        true
    }

    /// Calls a delayed message off.
    pub fn cancel(&mut self, now: Moment, id: i64, keep: Duration) -> bool {
        let Some(row) = self.row_mut(Side::Outbox, id) else { return false };
        let Some(state) = row.state.as_mut().filter(|state| state.status == Status::Delayed) else {
            return false;
        };
        state.status = Status::Failed;
        state.reason = Some(Reason::Cancelled);
        state.due = None;
        state.expires = Some(now + keep);
        true
    }

    /// Deletes a row that nobody works on.
    pub fn delete(&mut self, now: Moment, side: Side, id: i64, among: Among) -> bool {
        let idle = self.row(side, id).is_some_and(|row| row.is_among(among) && !row.is_held(now));
        if idle {
            self.remove(side, id);
        }
        idle
    }

    /// Deletes what has expired on one side: first what goes by its age, each in the order of its time.
    pub fn expire(&mut self, now: Moment, side: Side, keep: Duration, limit: usize) -> u64 {
        let mut ended: Vec<(Option<Moment>, Moment, i64)> = self
            .rows
            .iter()
            .filter(|row| row.side == side && row.has_ended(now, keep))
            .map(|row| (row.state.as_ref().and_then(|state| state.expires), row.added, row.id))
            .collect();
        ended.sort_unstable_by_key(|(expires, added, id)| {
            (*expires, expires.map_or(*added, |_| Moment::ZERO), *id)
        });
        ended.truncate(limit);
        for (_, _, id) in &ended {
            self.remove(side, *id);
        }
        ended.len() as u64
    }

    pub(super) fn remove(&mut self, side: Side, id: i64) {
        self.rows.retain(|row| row.side != side || row.id != id);
    }
}
