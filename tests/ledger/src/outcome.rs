//! What became of a message in each group: there, given up, never there, or one of the breaches of that.

use crate::book::{Book, Case, Message};
use crate::class::Class;
use crate::event::{Final, Told};
use crate::report::Findings;

/// Finds the class of each message in each group.
pub(crate) fn judge(book: &Book<'_>, findings: &mut Findings) {
    for (name, message) in &book.messages {
        let expected = message.groups.into_iter().flat_map(|groups| groups.keys().map(String::as_str));
        let mut groups: Vec<&str> = expected.chain(message.cases.keys().copied()).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            let none = Case::default();
            let case = message.cases.get(group).unwrap_or(&none);
            let (class, why) = if group.is_empty() {
                let Some(found) = in_outbox(message) else { continue };
                found
            } else {
                in_group(message, group, case)
            };
            findings.add(class, name, group, why);
            if class == Class::Delivered && case.stands == Some(Final::Unfinished) {
                findings.add(Class::Stuck, name, group, "handled, and the store still says unfinished");
            }
        }
    }
}

fn in_group(message: &Message<'_>, group: &str, case: &Case<'_>) -> (Class, &'static str) {
    if !message.groups.is_some_and(|groups| groups.contains_key(group)) {
        return (Class::Phantom, "no publish was for this group");
    }
    if message.called_off {
        return if case.was_seen() {
            (Class::Phantom, "cancelled in time, and yet it came")
        } else {
            (Class::Unseen, "")
        };
    }
    match message.told.unwrap_or(Told::Unknown) {
        Told::RolledBack | Told::Refused if case.was_seen() => {
            (Class::Phantom, "its publisher was told that it is not stored")
        }
        Told::RolledBack | Told::Refused => (Class::Unseen, ""),
        Told::Unknown if !message.was_seen() => (Class::NeverStored, ""),
        Told::Stored | Told::Unknown => stored(message, case),
    }
}

fn stored(message: &Message<'_>, case: &Case<'_>) -> (Class, &'static str) {
    let unfinished = Some(Final::Unfinished);
    if !case.effects.is_empty() {
        (Class::Delivered, "")
    } else if case.is_given_up() || message.cases.get("").is_some_and(Case::is_given_up) {
        (Class::GivenUp, "")
    } else if case.stands == unfinished || message.outbox() == unfinished {
        (Class::Stuck, "it still waits for something")
    } else if message.outbox() == Some(Final::CalledOff) && message.may_be_called_off {
        (Class::Unseen, "")
    } else if message.told == Some(Told::Stored) {
        (Class::Lost, "its publisher was told that it is stored")
    } else {
        (Class::Lost, "others have seen it, so it was stored")
    }
}

/// The outbox's row speaks only where something is wrong.
fn in_outbox(message: &Message<'_>) -> Option<(Class, &'static str)> {
    match (message.told, message.outbox()?) {
        (Some(Told::RolledBack | Told::Refused), _) => {
            Some((Class::Phantom, "its publisher was told that it is not stored, and it is in the outbox"))
        }
        (_, Final::Unfinished) => Some((Class::Stuck, "it has not left the outbox")),
        (_, state) if message.called_off && state != Final::CalledOff => {
            Some((Class::Phantom, "cancelled in time, and yet it left the outbox"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{classes, stands, told};
    use crate::{Event, Ledger};

    fn published(said: Option<Told>) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.note(1, Event::publish("m", &["a", "b"]));
        if let Some(said) = said {
            ledger.note(2, told("m", said));
        }
        ledger
    }

    #[test]
    fn stored_and_seen_by_one_group_only_is_lost_for_the_other() {
        for said in [Some(Told::Stored), Some(Told::Unknown), None] {
            let mut ledger = published(said);
            ledger.note(5, Event::effect("m", "a", "n", 1));
            assert_eq!(classes(&ledger), [Class::Delivered, Class::Lost], "{said:?}");
        }
        assert_eq!(classes(&published(Some(Told::Stored))), [Class::Lost, Class::Lost]);
    }

    #[test]
    fn what_nobody_knows_may_be_there_or_not() {
        assert_eq!(classes(&published(None)), [Class::NeverStored, Class::NeverStored]);
        let mut ledger = published(Some(Told::Unknown));
        ledger.note(5, Event::effect("m", "a", "n", 1));
        ledger.note(5, Event::effect("m", "b", "n", 1));
        assert_eq!(classes(&ledger), [Class::Delivered, Class::Delivered]);
    }

    #[test]
    fn what_was_rolled_back_or_refused_must_not_be_there() {
        for said in [Told::RolledBack, Told::Refused] {
            assert_eq!(classes(&published(Some(said))), [Class::Unseen, Class::Unseen]);
            let mut ledger = published(Some(said));
            ledger.note(5, Event::effect("m", "b", "n", 1));
            assert_eq!(classes(&ledger), [Class::Unseen, Class::Phantom]);
            let mut ledger = published(Some(said));
            ledger.note(5, stands("m", "", Final::Succeeded));
            assert_eq!(classes(&ledger), [Class::Phantom, Class::Unseen, Class::Unseen]);
        }
    }

    #[test]
    fn what_was_called_off_must_not_come() {
        let mut ledger = published(Some(Told::Stored));
        ledger.note(9, stands("m", "", Final::CalledOff));
        assert_eq!(classes(&ledger), [Class::Lost, Class::Lost], "nobody called it off");
        ledger.note(3, Event::CalledOff { message: "m".into(), sure: false });
        assert_eq!(classes(&ledger), [Class::Unseen, Class::Unseen]);
        ledger.note(3, Event::CalledOff { message: "m".into(), sure: true });
        assert_eq!(classes(&ledger), [Class::Unseen, Class::Unseen]);
        ledger.note(5, Event::effect("m", "b", "n", 1));
        ledger.note(10, stands("m", "", Final::Succeeded));
        assert_eq!(classes(&ledger), [Class::Phantom, Class::Unseen, Class::Phantom]);
    }

    #[test]
    fn nobody_published_it_or_not_for_this_group() {
        let mut ledger = published(Some(Told::Stored));
        for (message, group) in [("m", "a"), ("m", "b"), ("m", "c"), ("x", "a")] {
            ledger.note(5, Event::effect(message, group, "n", 1));
        }
        assert_eq!(classes(&ledger), [Class::Delivered, Class::Delivered, Class::Phantom, Class::Phantom]);
    }

    #[test]
    fn given_up_is_an_end_and_unfinished_is_none() {
        let mut ledger = published(Some(Told::Stored));
        ledger.note(5, stands("m", "a", Final::Exhausted));
        ledger.note(5, stands("m", "b", Final::Unfinished));
        assert_eq!(classes(&ledger), [Class::GivenUp, Class::Stuck]);
        ledger.note(6, Event::effect("m", "b", "n", 1));
        assert_eq!(classes(&ledger), [Class::GivenUp, Class::Delivered, Class::Stuck]);
        let mut ledger = published(Some(Told::Stored));
        ledger.note(5, stands("m", "", Final::Unfinished));
        assert_eq!(classes(&ledger), [Class::Stuck, Class::Stuck, Class::Stuck]);
        let mut ledger = published(Some(Told::Stored));
        ledger.note(5, stands("m", "", Final::Exhausted));
        assert_eq!(classes(&ledger), [Class::GivenUp, Class::GivenUp]);
    }
}
