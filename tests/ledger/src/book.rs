//! The events of a run, sorted by what they are about.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{End, Event, Final, Group, Told};
use crate::ledger::Entry;

/// A run of the system as the judge looks at it.
#[derive(Debug, Default)]
pub(crate) struct Book<'a> {
    pub(crate) groups: BTreeMap<&'a str, Group>,
    pub(crate) messages: BTreeMap<&'a str, Message<'a>>,
    nodes: BTreeMap<&'a str, Node>,
}

/// One message over all groups.
#[derive(Debug, Default)]
pub(crate) struct Message<'a> {
    /// What each group's success is to bring about; `None` if it was never published.
    pub(crate) groups: Option<&'a BTreeMap<String, Vec<String>>>,
    pub(crate) key: Option<&'a str>,
    pub(crate) due: Option<u64>,
    pub(crate) told: Option<Told>,
    pub(crate) called_off: bool,
    /// Somebody tried to, and may have succeeded.
    pub(crate) may_be_called_off: bool,
    pub(crate) sends_refused: u32,
    /// By group; the outbox has the empty name.
    pub(crate) cases: BTreeMap<&'a str, Case<'a>>,
}

/// One message in one group.
#[derive(Debug, Default)]
pub(crate) struct Case<'a> {
    pub(crate) received: Vec<Moment<'a>>,
    pub(crate) runs: Vec<Run<'a>>,
    pub(crate) effects: Vec<Moment<'a>>,
    pub(crate) follow_ups: BTreeMap<&'a str, BTreeSet<&'a str>>,
    pub(crate) notices: Vec<Moment<'a>>,
    pub(crate) store_refused: bool,
    pub(crate) stands: Option<Final>,
}

/// Something that a node did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) at: u64,
    /// The place among all events, which tells those of one moment apart.
    pub(crate) place: usize,
    pub(crate) node: &'a str,
}

/// One run of a handler.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    number: u64,
    pub(crate) began: Moment<'a>,
    /// How it ended, and its place among all events.
    pub(crate) ended: Option<(usize, End)>,
}

/// When a node was not itself, from and to; a death has no end.
#[derive(Debug, Default)]
struct Node {
    troubles: Vec<(u64, u64)>,
    /// Since when it is in each trouble that has not ended yet.
    open: Vec<u64>,
}

impl<'a> Book<'a> {
    /// Sorts events that are in order of time.
    pub(crate) fn of(entries: &[&'a Entry]) -> Self {
        let mut book = Self::default();
        for (place, entry) in entries.iter().enumerate() {
            book.enter(entry.at, place, &entry.event);
        }
        book
    }

    fn enter(&mut self, at: u64, place: usize, event: &'a Event) {
        let moment = |node: &'a str| Moment { at, place, node };
        match event {
            Event::Group { group, promised } => drop(self.groups.insert(group, *promised)),
            Event::Publish { message, groups, key, due } => {
                let message = self.message(message);
                (message.groups, message.key, message.due) = (Some(groups), key.as_deref(), *due);
            }
            Event::Told { message, told } => self.message(message).told = Some(*told),
            Event::CalledOff { message, sure } => {
                let message = self.message(message);
                message.called_off |= sure;
                message.may_be_called_off = true;
            }
            Event::SendRefused { message } => self.message(message).sends_refused += 1,
            Event::Received { message, group, node } => {
                self.case(message, group).received.push(moment(node));
            }
            Event::Began { message, group, node, run } => {
                let run = Run { number: *run, began: moment(node), ended: None };
                self.case(message, group).runs.push(run);
            }
            Event::Ended { message, group, run, how } => {
                let runs = &mut self.case(message, group).runs;
                if let Some(run) = runs.iter_mut().find(|one| one.number == *run) {
                    run.ended = Some((place, *how));
                }
            }
            Event::Effect { message, group, node, .. } => {
                self.case(message, group).effects.push(moment(node));
            }
            Event::FollowUp { message, group, what, id } => {
                self.case(message, group).follow_ups.entry(what).or_default().insert(id);
            }
            Event::StoreRefused { message, group } => self.case(message, group).store_refused = true,
            Event::Notice { message, group, node } => self.case(message, group).notices.push(moment(node)),
            Event::Stands { message, group, state } => self.case(message, group).stands = Some(*state),
            Event::Died { node } => self.nodes.entry(node).or_default().troubles.push((at, u64::MAX)),
            Event::Trouble { node } => self.nodes.entry(node).or_default().trouble(at),
            Event::Recovered { node } => self.nodes.entry(node).or_default().recover(at),
        }
    }

    fn message(&mut self, message: &'a str) -> &mut Message<'a> {
        self.messages.entry(message).or_default()
    }

    fn case(&mut self, message: &'a str, group: &'a str) -> &mut Case<'a> {
        self.message(message).cases.entry(group).or_default()
    }

    /// What a group is promised; nothing for one that nobody declared.
    pub(crate) fn promised(&self, group: &str) -> Group {
        self.groups.get(group).copied().unwrap_or(Group { again_only_with_cause: false, ..Group::plain() })
    }

    /// Whether a node died or was in trouble at any time between two moments, both included.
    pub(crate) fn in_trouble(&self, node: &str, from: u64, to: u64) -> bool {
        self.nodes.get(node).is_some_and(|node| node.in_trouble(from, to))
    }
}

impl Node {
    fn trouble(&mut self, at: u64) {
        self.open.push(at);
    }

    /// Ends one of its troubles: it is out of trouble when all of them have ended.
    fn recover(&mut self, at: u64) {
        if let Some(since) = self.open.pop() {
            self.troubles.push((since, at));
        }
    }

    fn in_trouble(&self, from: u64, to: u64) -> bool {
        let open = self.open.iter().map(|since| (*since, u64::MAX));
        self.troubles.iter().copied().chain(open).any(|(began, ended)| began <= to && ended >= from)
    }
}

impl Message<'_> {
    pub(crate) fn outbox(&self) -> Option<Final> {
        self.cases.get("").and_then(|case| case.stands)
    }

    /// Whether it has shown up anywhere: then it was stored, whatever the caller was told.
    pub(crate) fn was_seen(&self) -> bool {
        self.cases.values().any(Case::was_seen)
    }
}

impl Case<'_> {
    pub(crate) fn was_seen(&self) -> bool {
        !self.runs.is_empty() || !self.effects.is_empty() || self.stands.is_some()
    }

    /// Whether it has failed for good.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(self.stands, Some(Final::Exhausted | Final::Failed))
    }

    /// How many runs ended so.
    pub(crate) fn ended(&self, how: End) -> usize {
        self.runs.iter().filter(|run| run.ended.is_some_and(|(_, end)| end == how)).count()
    }
}
