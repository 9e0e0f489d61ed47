//! The indexes of the in-memory storage: by due time, by expiry, by age.

use std::collections::{BTreeSet, HashMap};

use super::row::{Lane, Moment, Row};
use cap_adapter::storage::Status;

/// The indexes over all rows. A row is removed before its state changes and inserted again afterwards.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    due: HashMap<Lane, BTreeSet<(Moment, i64)>>,
    expiring: BTreeSet<(Moment, i64)>,
    done: BTreeSet<(Moment, i64)>,
}

impl Index {
    pub(super) fn add(&mut self, row: &Row) {
        if expires_by_age(row) {
            self.done.insert((row.added, row.id));
        }
        let Some(state) = &row.state else { return };
        if let Some(due) = state.due {
            self.due.entry(row.lane()).or_default().insert((due, row.id));
        }
        if let Some(expires) = state.expires {
            self.expiring.insert((expires, row.id));
        }
    }

    pub(super) fn remove(&mut self, row: &Row) {
        if expires_by_age(row) {
            self.done.remove(&(row.added, row.id));
        }
        let Some(state) = &row.state else { return };
        if let Some(due) = state.due
            && let Some(lane) = self.due.get_mut(&row.lane())
        {
            lane.remove(&(due, row.id));
            if lane.is_empty() {
                self.due.remove(&row.lane());
            }
        }
        if let Some(expires) = state.expires {
            self.expiring.remove(&(expires, row.id));
        }
    }

    /// The row of these queues with the earliest due time.
    pub(super) fn first_due(&self, lanes: &[Lane]) -> Option<(Moment, i64)> {
        lanes.iter().filter_map(|lane| self.due.get(lane)?.first().copied()).min()
    }

    /// The earliest due time of each queue.
    pub(super) fn first_due_of_each(&self) -> impl Iterator<Item = (&Lane, Moment)> {
        self.due.iter().filter_map(|(lane, due)| due.first().map(|(at, _)| (lane, *at)))
    }

    /// The rows that succeeded without an expiry of their own and were added before `added`, and those whose expiry
    /// has come, the oldest of each first.
    pub(super) fn expired(&self, added: Option<Moment>, now: Moment, limit: usize) -> Vec<i64> {
        let by_age = self.done.iter().take_while(|(at, _)| added.is_some_and(|added| *at <= added));
        let by_expiry = self.expiring.iter().take_while(|(at, _)| *at <= now);
        by_age.chain(by_expiry).take(limit).map(|(_, id)| *id).collect()
    }
}

fn expires_by_age(row: &Row) -> bool {
    let is_over = row.status() == Status::Succeeded;
    is_over && row.state.as_ref().is_none_or(|state| state.expires.is_none())
}
