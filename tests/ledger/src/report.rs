//! The outcome on a run: a table of counts, each breach, and the story of the messages concerned.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::book::Book;
use crate::class::Class;
use crate::ledger::Entry;
use crate::{follow_ups, notices, order, outcome, runs};

/// One message in one group, and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its class.
    pub class: Class,
    /// The message.
    pub message: String,
    /// The group; empty for the outbox.
    pub group: String,
    /// Why, where there is something to say.
    pub why: String,
}

/// The judgement of a run.
#[derive(Debug, Clone)]
pub struct Report {
    findings: Vec<Finding>,
    /// The events of the first messages with a breach.
    stories: Vec<String>,
}

/// Where the parts of the judge write.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, class: Class, message: &str, group: &str, why: impl Into<String>) {
        let (message, group) = (message.to_owned(), group.to_owned());
        self.0.push(Finding { class, message, group, why: why.into() });
    }
}

/// So many messages have their story told; one is mostly enough.
const STORIES: usize = 3;

impl Report {
    /// Judges events that are in order of time.
    pub(crate) fn of(entries: &[&Entry]) -> Self {
        let book = Book::of(entries);
        let mut findings = Findings::default();
        for judge in [outcome::judge, runs::judge, order::judge, follow_ups::judge, notices::judge] {
            judge(&book, &mut findings);
        }
        let Findings(findings) = findings;
        let stories = stories(entries, &findings);
        Self { findings, stories }
    }

    /// How many messages and groups there are of each class.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Class, usize> {
        let mut counts = BTreeMap::new();
        for finding in &self.findings {
            *counts.entry(finding.class).or_default() += 1;
        }
        counts
    }

    /// Everything that was found, breaches and all else.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Every broken promise.
    pub fn breaches(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.class.is_breach())
    }

    /// Whether no promise was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.breaches().next().is_none()
    }

    /// Expects no promise to be broken. `how_to_repeat` stands in the message: the seed, or better the command.
    ///
    /// # Panics
    ///
    /// With the whole report, when one was.
    #[track_caller]
    pub fn assert_clean(&self, how_to_repeat: &str) {
        assert!(self.is_clean(), "promises were broken; to see it again: {how_to_repeat}\n{self}");
    }
}

fn stories(entries: &[&Entry], findings: &[Finding]) -> Vec<String> {
    let breaches = findings.iter().filter(|finding| finding.class.is_breach());
    let mut messages: Vec<&str> = breaches.map(|finding| finding.message.as_str()).collect();
    let mut seen = BTreeSet::new();
    messages.retain(|message| seen.insert(*message));
    let concerned = |entry: &Entry| match entry.event.message() {
        Some(message) => messages.iter().take(STORIES).any(|one| *one == message),
        None => entry.at > 0,
    };
    let lines = entries.iter().filter(|entry| concerned(entry));
    if messages.is_empty() {
        Vec::new()
    } else {
        lines.map(|entry| format!("{:>10}  {:?}", entry.at, entry.event)).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        for class in Class::ALL {
            let mark = if class.is_breach() { '!' } else { ' ' };
            writeln!(f, "{mark} {:<24}{:>8}", class.as_str(), counts.get(&class).unwrap_or(&0))?;
        }
        for Finding { class, message, group, why } in self.breaches() {
            let group = if group.is_empty() { "the outbox" } else { group };
            writeln!(f, "{}: message {message} in {group}: {why}", class.as_str())?;
        }
        self.stories.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Short forms for the judge's own tests.
#[cfg(test)]
pub(crate) mod testing {
    use crate::{Class, End, Event, Final, Ledger, Told};

    pub(crate) fn classes(ledger: &Ledger) -> Vec<Class> {
        ledger.judge().findings().iter().map(|finding| finding.class).collect()
    }

    pub(crate) fn breaches(ledger: &Ledger) -> Vec<Class> {
        let report = ledger.judge();
        // What these tests are not about: they leave out what does not matter to them.
        let beside = |class: &Class| !matches!(class, Class::Lost);
        report.breaches().map(|finding| finding.class).filter(beside).collect()
    }

    pub(crate) fn told(message: &str, told: Told) -> Event {
        Event::Told { message: message.into(), told }
    }

    pub(crate) fn stands(message: &str, group: &str, state: Final) -> Event {
        Event::Stands { message: message.into(), group: group.into(), state }
    }

    pub(crate) fn began(message: &str, group: &str, node: &str, run: u64) -> Event {
        Event::Began { message: message.into(), group: group.into(), node: node.into(), run }
    }

    pub(crate) fn ended(message: &str, group: &str, run: u64, how: End) -> Event {
        Event::Ended { message: message.into(), group: group.into(), run, how }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Event, Ledger};

    #[test]
    fn the_table_names_every_breach_and_tells_its_story() {
        let mut ledger = Ledger::default();
        for message in ["good", "bad"] {
            ledger.note(1, Event::publish(message, &["g"]));
            ledger.note(2, super::testing::told(message, crate::Told::Stored));
        }
        ledger.note(3, Event::effect("good", "g", "n", 1));
        let report = ledger.judge();
        let text = report.to_string();
        assert!(text.contains("  delivered                      1\n"), "{text}");
        assert!(text.contains("! lost                           1\n"), "{text}");
        assert!(text.contains("lost: message bad in g: its publisher was told"), "{text}");
        assert!(text.contains("Publish { message: \"bad\"") && !text.contains("message: \"good\""), "{text}");
        let panic = std::panic::catch_unwind(|| report.assert_clean("seed 42")).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("to see it again: seed 42"), "{text}");
    }
}
