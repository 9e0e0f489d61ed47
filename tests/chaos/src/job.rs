//! The messages that nodes send each other, and what is to become of each, drawn from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// The topic of the work, and of what comes back from it.
pub(crate) const WORK: &str = "work";
pub(crate) const ANSWER: &str = "answer";
pub(crate) const ECHO: &str = "echo";

/// The group whose effects are promised once, and the one without a transaction.
pub(crate) const ONCE: &str = "once";
pub(crate) const PLAIN: &str = "plain";
/// The group that hears answers and echoes.
pub(crate) const FOLLOW: &str = "follow";

/// One piece of work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Its name in the ledger; see [`Job::draw`].
    pub(crate) key: String,
    pub(crate) course: Course,
    /// Its handlers publish an echo.
    pub(crate) echo: bool,
    /// Its publisher asks for an answer.
    pub(crate) answer: bool,
}

/// What its handlers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Course {
    Fine,
    /// So many attempts fail first.
    Fails(u32),
    Panics,
    /// It takes so many milliseconds.
    Slow(u64),
    /// Every attempt fails.
    Poison,
    /// It says that it can never succeed.
    Permanent,
}

/// How it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Alone,
    Delayed(Duration),
    /// Delayed, and cancelled while it waits.
    CalledOff(Duration),
    /// In a transaction of the bus's, with a row of the application's.
    Within,
    /// In a plain one of the driver's.
    WithinPlain,
    RolledBack,
    /// In a transaction that is dropped.
    Dropped,
}

impl Way {
    fn draw(random: &mut Rng) -> Self {
        let delay = Duration::from_millis(random.u64(50..1500));
        match random.u8(0..100) {
            0..30 => Self::Alone,
            30..40 => Self::Delayed(delay),
            40..45 => Self::CalledOff(delay),
            45..70 => Self::Within,
            70..83 => Self::WithinPlain,
            83..93 => Self::RolledBack,
            _ => Self::Dropped,
        }
    }

    fn is_within(self) -> bool {
        !matches!(self, Self::Alone | Self::Delayed(_) | Self::CalledOff(_))
    }
}

impl Course {
    fn draw(random: &mut Rng) -> Self {
        match random.u8(0..100) {
            0..70 => Self::Fine,
            70..80 => Self::Fails(random.u32(1..3)),
            80..83 => Self::Panics,
            83..93 => Self::Slow(random.u64(20..300)),
            93..97 => Self::Poison,
            _ => Self::Permanent,
        }
    }

    fn gives_up(self) -> bool {
        matches!(self, Self::Poison | Self::Permanent)
    }
}

impl Job {
    /// The next piece of work. Its name says two things that the judge must know even of a message whose publisher
    /// died: whether it is in a transaction (`t`, or `a` for alone), and whether it can succeed (`s`, or `f`).
    pub(crate) fn draw(random: &mut Rng, node: &str, number: u64) -> (Self, Way) {
        let (way, course) = (Way::draw(random), Course::draw(random));
        let within = if way.is_within() { 't' } else { 'a' };
        let fate = if course.gives_up() { 'f' } else { 's' };
        let key = format!("{within}{fate}-{node}-{number}");
        (Self { key, course, echo: random.u8(..) < 80, answer: random.u8(..) < 80 }, way)
    }

    /// What each group's success is to bring about.
    pub(crate) fn groups(&self) -> BTreeMap<String, Vec<String>> {
        let what = [(self.answer, ANSWER), (self.echo, ECHO)];
        let what: Vec<String> =
            what.into_iter().filter(|(wanted, _)| *wanted).map(|(_, what)| what.to_owned()).collect();
        [ONCE, PLAIN].into_iter().map(|group| (group.to_owned(), what.clone())).collect()
    }

    /// Whether a message of this name was published in a transaction, whose row in the application's table says
    /// whether it was committed.
    pub(crate) fn was_within(key: &str) -> bool {
        key.starts_with('t')
    }

    /// Whether a message of this name is meant to fail for good.
    pub(crate) fn may_give_up(key: &str) -> bool {
        key.as_bytes().get(1) == Some(&b'f')
    }
}

/// What comes back from a handler.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Back {
    /// The work that was done.
    pub(crate) key: String,
    /// By which group.
    pub(crate) group: String,
    /// An answer or an echo.
    pub(crate) what: String,
}
