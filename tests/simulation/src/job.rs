//! What the messages of a run ask of their handlers.

use std::collections::BTreeMap;
use std::time::Duration;

use cap_core::RetryPolicy;
use cap_core::message::Message;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::plan::{LEASE, within};

/// The topic of the jobs.
pub(crate) const JOBS: &str = "job";
/// The topic that answers go to.
pub(crate) const ANSWERS: &str = "answer";
/// The topic of what handlers publish.
pub(crate) const CHILDREN: &str = "child";

/// The group whose handler does its work outside of any transaction.
pub(crate) const PLAIN: &str = "plain";
/// The group whose handler works in a transaction.
pub(crate) const ONCE: &str = "once";
/// The group that keeps the order of keys.
pub(crate) const KEYED: &str = "keyed";
/// Every group that handles jobs.
pub(crate) const GROUPS: [&str; 3] = [PLAIN, ONCE, KEYED];

/// The header that keys stand in.
pub(crate) const KEY: &str = "key";

/// A handler of the plain group that takes longer has failed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);
/// How many attempts every policy here allows.
pub(crate) const ATTEMPTS: u32 = 4;

/// When a failed job is tried again: two attempts at once, then after short pauses.
pub(crate) fn retry() -> RetryPolicy {
    RetryPolicy::Stepped {
        at_once: 2,
        then_after: Duration::from_secs(2),
        every: Duration::from_secs(1),
        attempts: ATTEMPTS,
    }
}

/// The same pauses, spent at the broker.
pub(crate) fn retry_at_broker() -> RetryPolicy {
    RetryPolicy::broker([0, 2, 1].map(Duration::from_secs))
}

/// A job as the run knows it; its message carries the number only.
#[derive(Debug)]
pub(crate) struct Job {
    /// What the handler of each group does, run by run; the last goes on for good.
    acts: BTreeMap<&'static str, Vec<Act>>,
    /// Whether the handlers publish something.
    pub(crate) publishes: bool,
}

/// What a handler does, after a while.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Succeed(Duration),
    /// Succeeds, unless it is told to stop before.
    SucceedUnlessStopped(Duration),
    Fail(Duration),
    /// Fails, and asks for a pause of its own.
    FailAndRest(Duration),
    Permanent,
    Panic,
    /// Says that its work was cancelled.
    CallOff,
    /// Takes longer than it may; without a time-out it comes to an end after all.
    TakeTooLong,
}

/// What a handler answers with, and what it publishes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) job: u64,
    pub(crate) group: String,
}

impl Job {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let acts = GROUPS.into_iter().map(|group| (group, acts(rng))).collect();
        Self { acts, publishes: rng.u8(0..3) == 0 }
    }

    pub(crate) fn act(&self, group: &str, index: usize) -> Act {
        let acts = self.acts.get(group).map_or(&[][..], Vec::as_slice);
        acts.get(index).or(acts.last()).copied().unwrap_or(Act::Succeed(Duration::ZERO))
    }
}

/// Most succeed at once, many after some trouble, few never.
fn acts(rng: &mut Rng) -> Vec<Act> {
    let mut acts = Vec::new();
    if rng.u8(0..3) == 0 {
        acts.extend((0..rng.usize(1..=5)).map(|_| trouble(rng)));
    }
    acts.push(match rng.u8(0..12) {
        0 => Act::Fail(Duration::ZERO),
        1 => Act::SucceedUnlessStopped(within(rng, LEASE * 2)),
        2 => Act::Succeed(within(rng, LEASE * 2)),
        3..6 => Act::Succeed(within(rng, LEASE / 6)),
        _ => Act::Succeed(Duration::ZERO),
    });
    acts
}

fn trouble(rng: &mut Rng) -> Act {
    match rng.u8(0..12) {
        0 => Act::Permanent,
        1 | 2 => Act::Panic,
        3 | 4 => Act::CallOff,
        5 => Act::TakeTooLong,
        6 => Act::FailAndRest(within(rng, LEASE)),
        7 => Act::Fail(within(rng, LEASE * 2)),
        _ => Act::Fail(Duration::ZERO),
    }
}

/// The number of the job that a message is; none if it is no job.
pub(crate) fn number_of(message: &Message) -> Option<u64> {
    (message.name() == Some(JOBS)).then(|| message.payload().ok()).flatten()
}

/// The ledger's name of a job.
pub(crate) fn name(n: u64) -> String {
    format!("job {n}")
}
