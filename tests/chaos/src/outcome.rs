//! What is to be said of a scenario, now or at its end.

use std::collections::BTreeMap;
use std::fmt;

use cap_ledger::{Class, Report};

/// The judgement of a scenario.
#[derive(Debug)]
pub struct RowOutcome {
    pub(crate) report: Report,
    pub(crate) unfinished: usize,
    /// How many runs of handlers have ended well, and things that came back were heard.
    pub(crate) runs: usize,
    pub(crate) strange: Vec<String>,
}

impl RowOutcome {
    /// How many messages and groups there are of each class.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Class, usize> {
        self.report.counts()
    }

    /// How many rows have failed for good that should not have, messages of no handler or with no body that is known among
    /// them.
    #[must_use]
    pub fn wrongly_parked(&self) -> usize {
        self.strange.len()
    }

    /// Whether nothing was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.unfinished == 0 && self.strange.is_empty()
    }

    /// Whether nothing is to be waited for: what is broken all the same stays so.
    pub(crate) fn is_quiet(&self) -> bool {
        let waits = |class: Class| {
            matches!(class, Class::Lost | Class::Stuck | Class::FollowUpLost | Class::NoticeLost)
        };
        self.unfinished == 0 && !self.report.breaches().any(|finding| waits(finding.class))
    }

    /// What changes as long as anything is done.
    pub(crate) fn progress(&self) -> usize {
        self.runs
    }

    /// Expects nothing to be broken.
    ///
    /// # Panics
    ///
    /// With all that was, and how to see it again.
    #[track_caller]
    pub fn assert_clean(&self, how_to_repeat: &str) {
        assert!(self.is_clean(), "promises were broken; to see it again: {how_to_repeat}\n{self}");
    }
}

impl fmt::Display for RowOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rows are unfinished", self.unfinished)?;
        for line in self.strange.iter().take(10) {
            writeln!(f, "{line}")?;
        }
        write!(f, "{}", self.report)
    }
}
