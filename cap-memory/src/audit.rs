//! What operators did, in memory.

use std::collections::VecDeque;

use cap_adapter::monitor::NewAct;

use super::row::Moment;

/// The most acts that are kept in memory.
const MOST: usize = 10_000;

/// The acts of operators, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Audit {
    last: i64,
    acts: VecDeque<(i64, Moment, NewAct)>,
}

impl Audit {
    pub(super) fn record(&mut self, now: Moment, act: NewAct) {
        self.last += 1;
        self.acts.push_back((self.last, now, act));
        while self.acts.len() > MOST
            || self.acts.front().is_some_and(|(_, at, _)| now.saturating_sub(*at) > NewAct::KEPT_FOR)
        {
            self.acts.pop_front();
        }
    }

    /// The acts with a smaller number, newest first.
    pub(super) fn before(&self, number: Option<i64>) -> impl Iterator<Item = &(i64, Moment, NewAct)> {
        let number = number.unwrap_or(i64::MAX);
        self.acts.iter().rev().filter(move |(id, ..)| *id < number)
    }
}
