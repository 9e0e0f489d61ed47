//! Whether a handler's success brought about what it should: its answer, and what it published.

use crate::book::{Book, Case};
use crate::class::Class;
use crate::event::Final;
use crate::report::Findings;

/// Finds answers and published messages that are missing, doubled, or without a success.
pub(crate) fn judge(book: &Book<'_>, findings: &mut Findings) {
    for (name, message) in &book.messages {
        for (group, case) in message.cases.iter().filter(|(group, _)| !group.is_empty()) {
            let expected =
                message.groups.and_then(|groups| groups.get(*group)).map_or(&[][..], Vec::as_slice);
            for (what, ids) in &case.follow_ups {
                if !expected.iter().any(|expected| expected == what) || !has_succeeded(case) {
                    let why = format!("{what} is there without the handler's success");
                    findings.add(Class::FollowUpPhantom, name, group, why);
                } else if ids.len() > 1 {
                    let ids: Vec<&str> = ids.iter().copied().collect();
                    findings.add(Class::FollowUpDoubled, name, group, format!("{what}: {}", ids.join(", ")));
                }
            }
            for what in expected.iter().filter(|what| !case.follow_ups.contains_key(what.as_str())) {
                if has_succeeded(case) && case.stands != Some(Final::Unfinished) {
                    findings.add(Class::FollowUpLost, name, group, format!("{what} is missing"));
                }
            }
        }
    }
}

fn has_succeeded(case: &Case<'_>) -> bool {
    !case.effects.is_empty() && !case.is_given_up()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{breaches, stands};
    use crate::{Event, Ledger};

    fn with_answer(ids: &[&str], effect: bool) -> Ledger {
        let mut ledger = Ledger::default();
        let groups = [("g".to_owned(), vec!["answer".to_owned()])].into();
        ledger.note(1, Event::Publish { message: "m".into(), groups, key: None, due: None });
        if effect {
            ledger.note(2, Event::effect("m", "g", "n", 1));
        }
        for id in ids {
            ledger.note(3, answered("answer", id));
        }
        ledger
    }

    fn answered(what: &str, id: &str) -> Event {
        Event::FollowUp { message: "m".into(), group: "g".into(), what: what.into(), id: id.into() }
    }

    #[test]
    fn one_answer_to_each_success() {
        assert!(breaches(&with_answer(&["1"], true)).is_empty());
        assert!(breaches(&with_answer(&["1", "1"], true)).is_empty(), "one answer seen twice");
        assert_eq!(breaches(&with_answer(&[], true)), [Class::FollowUpLost]);
        assert_eq!(breaches(&with_answer(&["1", "2"], true)), [Class::FollowUpDoubled]);
        assert_eq!(breaches(&with_answer(&["1"], false)), [Class::FollowUpPhantom]);
    }

    #[test]
    fn no_answer_of_a_failure_and_none_that_nobody_asked_for() {
        let mut ledger = with_answer(&["1"], false);
        ledger.note(9, stands("m", "g", Final::Exhausted));
        assert_eq!(breaches(&ledger), [Class::FollowUpPhantom]);
        let mut ledger = with_answer(&["1"], true);
        ledger.note(3, answered("else", "5"));
        assert_eq!(breaches(&ledger), [Class::FollowUpPhantom]);
    }
}
