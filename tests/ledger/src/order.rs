//! Whether messages of one key were handled one after the other, in the order in which a node received them.

use std::collections::BTreeMap;

use crate::book::{Book, Case};
use crate::class::Class;
use crate::report::Findings;

/// A message on the node that received it and was the first to run it.
struct Turn<'a> {
    message: &'a str,
    received: usize,
    received_at: u64,
    began: usize,
    began_at: u64,
    /// The place at which its first run ended; none if it never did.
    ended: usize,
}

/// Finds messages that were handled before an older one of their key had been.
///
/// Order is promised on one node and as long as none fails: only first runs count, and only on a node that received
/// both messages itself and was not in trouble since.
pub(crate) fn judge(book: &Book<'_>, findings: &mut Findings) {
    for (group, promised) in &book.groups {
        if !promised.ordered {
            continue;
        }
        let mut lines: BTreeMap<(&str, &str), Vec<Turn<'_>>> = BTreeMap::new();
        for (name, message) in &book.messages {
            if let Some(key) = message.key
                && let Some(case) = message.cases.get(group)
                && let Some((node, turn)) = turn(name, case)
            {
                lines.entry((node, key)).or_default().push(turn);
            }
        }
        for ((node, key), mut turns) in lines {
            turns.sort_by_key(|turn| turn.received);
            for pair in turns.windows(2) {
                if let [older, younger] = pair
                    && younger.began < older.ended
                    && !book.in_trouble(node, older.received_at, younger.began_at.max(older.began_at))
                {
                    let why =
                        format!("it began on {node} before {} of the key {key} had ended", older.message);
                    findings.add(Class::Reordered, younger.message, group, why);
                }
            }
        }
    }
}

fn turn<'a>(message: &'a str, case: &Case<'a>) -> Option<(&'a str, Turn<'a>)> {
    let first = case.runs.first()?;
    let node = first.began.node;
    let received = case.received.iter().find(|received| received.node == node)?;
    let turn = Turn {
        message,
        received: received.place,
        received_at: received.at,
        began: first.began.place,
        began_at: first.began.at,
        ended: first.ended.map_or(usize::MAX, |(place, _)| place),
    };
    Some((node, turn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{began, breaches, ended};
    use crate::{End, Event, Group, Ledger};

    /// Two messages of one key, received as 1, 2 by `n`.
    fn received(keys: [&str; 2]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.group("g", Group { ordered: true, ..Group::plain() });
        for (message, key) in ["1", "2"].into_iter().zip(keys) {
            let groups = [("g".to_owned(), Vec::new())].into();
            let (message, key) = (message.to_owned(), Some(key.to_owned()));
            ledger.note(1, Event::Publish { message, groups, key, due: None });
        }
        for message in ["1", "2"] {
            let (message, group, node) = (message.to_owned(), "g".to_owned(), "n".to_owned());
            ledger.note(2, Event::Received { message, group, node });
        }
        ledger
    }

    fn run(ledger: &mut Ledger, message: &str, node: &str, from: u64, to: u64) {
        ledger.note(from, began(message, "g", node, from));
        ledger.note(to, Event::effect(message, "g", node, 1));
        ledger.note(to, ended(message, "g", from, End::Succeeded));
    }

    #[test]
    fn one_after_the_other_is_fine_and_nothing_else() {
        for (second, fine) in [(6, true), (4, false), (2, false)] {
            let mut ledger = received(["k", "k"]);
            run(&mut ledger, "1", "n", 3, 5);
            run(&mut ledger, "2", "n", second, second + 1);
            let expected: &[Class] = if fine { &[] } else { &[Class::Reordered] };
            assert_eq!(breaches(&ledger), expected, "second at {second}");
        }
    }

    #[test]
    fn other_keys_other_nodes_and_trouble_have_no_order() {
        let mut keys = received(["k", "l"]);
        run(&mut keys, "1", "n", 5, 6);
        run(&mut keys, "2", "n", 3, 4);
        assert!(breaches(&keys).is_empty());
        let mut nodes = received(["k", "k"]);
        run(&mut nodes, "1", "other", 5, 6);
        run(&mut nodes, "2", "n", 3, 4);
        assert!(breaches(&nodes).is_empty());
        let mut trouble = received(["k", "k"]);
        run(&mut trouble, "1", "n", 5, 6);
        run(&mut trouble, "2", "n", 3, 4);
        trouble.note(3, Event::Trouble { node: "n".into() });
        trouble.note(4, Event::Recovered { node: "n".into() });
        assert!(breaches(&trouble).is_empty());
    }
}
