//! Whether an operator was told of each message that failed for good, and not more often than needed.

use crate::book::Book;
use crate::class::Class;
use crate::report::Findings;

/// Finds failures that nobody was told of, and notices that should not have been.
pub(crate) fn judge(book: &Book<'_>, findings: &mut Findings) {
    for (name, message) in &book.messages {
        for (group, case) in &message.cases {
            if !book.promised(group).notices {
                continue;
            }
            match (case.is_given_up(), case.notices.first()) {
                (true, None) => findings.add(Class::NoticeLost, name, group, "nobody was told"),
                (false, Some(notice)) => {
                    findings.add(Class::NoticePhantom, name, group, format!("{} told of it", notice.node));
                }
                _ => {}
            }
            for pair in case.notices.windows(2) {
                // As for a run: a node that died or lost its lease may not have been able to note that it told.
                if let [before, next] = pair
                    && !book.in_trouble(before.node, before.at, next.at)
                    && !book.in_trouble(next.node, next.at, next.at)
                {
                    let why = format!("{} told of it, and {} again", before.node, next.node);
                    findings.add(Class::NoticeDoubled, name, group, why);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{breaches, stands};
    use crate::{Event, Final, Group, Ledger};

    fn failed(nodes: &[&str], state: Final) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.group("g", Group { notices: true, ..Group::plain() });
        ledger.note(1, Event::publish("m", &["g"]));
        if state == Final::Succeeded {
            ledger.note(2, Event::effect("m", "g", "n", 1));
        }
        for (at, node) in (5..).zip(nodes) {
            let (message, group, node) = ("m".to_owned(), "g".to_owned(), (*node).to_owned());
            ledger.note(at, Event::Notice { message, group, node });
        }
        ledger.note(99, stands("m", "g", state));
        ledger
    }

    #[test]
    fn told_once_and_only_of_failures() {
        assert!(breaches(&failed(&["n"], Final::Exhausted)).is_empty());
        assert!(breaches(&failed(&[], Final::Succeeded)).is_empty());
        assert_eq!(breaches(&failed(&[], Final::Failed)), [Class::NoticeLost]);
        assert_eq!(breaches(&failed(&["n"], Final::Succeeded)), [Class::NoticePhantom]);
        assert_eq!(breaches(&failed(&["n", "n"], Final::Exhausted)), [Class::NoticeDoubled]);
    }

    #[test]
    fn told_again_when_the_first_died_over_it() {
        let mut ledger = failed(&["n", "o"], Final::Exhausted);
        assert_eq!(breaches(&ledger), [Class::NoticeDoubled]);
        ledger.note(6, Event::Died { node: "n".into() });
        assert!(breaches(&ledger).is_empty());
    }
}
