//! How many rows a search looks at next, and when it stops.

use std::time::{Duration, Instant};

use cap_adapter::monitor::{Bound, SearchLimits};

/// How many rows the first step looks at.
const FIRST_STEP: u64 = 1_000;

/// The most rows of a step.
const LONGEST_STEP: u64 = 20_000;

/// A step that took less than this is followed by one that is twice as long.
const SHORT: Duration = Duration::from_millis(100);

/// A step that took more than this is followed by one that is half as long.
const LONG: Duration = Duration::from_millis(400);

/// Divides a search into steps, each of which looks at some rows, so that it can stop between two of them and say where to
/// continue.
#[derive(Debug)]
pub struct SearchPace {
    limits: SearchLimits,
    began: Instant,
    step: u64,
    looked_at: u64,
}

impl SearchPace {
    /// Begins a search.
    #[must_use]
    pub fn new(limits: &SearchLimits) -> Self {
        Self { limits: *limits, began: Instant::now(), step: FIRST_STEP, looked_at: 0 }
    }

    /// How many rows the next step looks at. The first one is made however little time there is, so that each search gets on.
    ///
    /// # Errors
    ///
    /// The bound at which the search stops.
    pub fn next(&self) -> Result<u64, Bound> {
        let left = self.limits.rows.saturating_sub(self.looked_at);
        if left == 0 {
            return Err(Bound::Rows);
        }
        if self.looked_at > 0 && self.began.elapsed() >= self.limits.time {
            return Err(Bound::Time);
        }
        Ok(self.step.min(left))
    }

    /// Records a step, with the rows it looked at and the time it took.
    pub fn made(&mut self, rows: u64, took: Duration) {
        self.looked_at += rows;
        if took < SHORT {
            self.step = (self.step * 2).min(LONGEST_STEP);
        } else if took > LONG {
            self.step = (self.step / 2).max(1);
        }
    }

    /// Makes the next steps much shorter, after the database cancelled one because it took too long. `false` if they
    /// cannot be shorter.
    pub fn slow_down(&mut self) -> bool {
        let could = self.step > 1;
        self.step = (self.step / 16).max(1);
        could
    }

    /// How many rows it has looked at.
    #[must_use]
    pub fn looked_at(&self) -> u64 {
        self.looked_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_never_exceed_the_bound_in_rows() {
        let mut pace = SearchPace::new(&SearchLimits::new(1_500, Duration::MAX));
        assert_eq!(pace.next(), Ok(1_000));
        pace.made(1_000, Duration::ZERO);
        assert_eq!(pace.next(), Ok(500), "although it was short");
        pace.made(500, Duration::ZERO);
        assert_eq!(pace.next(), Err(Bound::Rows));
        assert_eq!(pace.looked_at(), 1_500);
    }

    #[test]
    fn first_step_is_made_without_time() {
        let mut pace = SearchPace::new(&SearchLimits::new(u64::MAX, Duration::ZERO));
        assert_eq!(pace.next(), Ok(1_000));
        pace.made(1_000, Duration::ZERO);
        assert_eq!(pace.next(), Err(Bound::Time));
    }

    #[test]
    fn slow_steps_get_shorter_down_to_one_row() {
        let mut pace = SearchPace::new(&SearchLimits::new(u64::MAX, Duration::MAX));
        pace.made(1_000, Duration::from_secs(1));
        assert_eq!(pace.next(), Ok(500));
        while pace.slow_down() {}
        assert_eq!(pace.next(), Ok(1));
    }
}
