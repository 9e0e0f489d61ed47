//! How often a handler ran, and whether it had cause to.

use crate::book::{Book, Case, Message, Run};
use crate::class::Class;
use crate::event::{End, Final, Group};
use crate::report::Findings;

/// Finds effects that are doubled, runs without cause, too early, too many or too few.
pub(crate) fn judge(book: &Book<'_>, findings: &mut Findings) {
    let outbox = book.promised("");
    for (name, message) in &book.messages {
        for (group, case) in message.cases.iter().filter(|(group, _)| !group.is_empty()) {
            let promised = book.promised(group);
            effects(promised, case, &mut |class, why| findings.add(class, name, group, why));
            again(book, promised, case, &mut |class, why| findings.add(class, name, group, why));
            attempts(book, promised, case, &mut |class, why| findings.add(class, name, group, why));
            if let Some(due) = message.due
                && let Some(run) = case.runs.iter().find(|run| run.began.at < due)
            {
                let why = format!("began at {} and was due at {due}", run.began.at);
                findings.add(Class::Early, name, group, why);
            }
        }
        if let Some(allowed) = outbox.attempts {
            sends(message, allowed, &mut |class, why| findings.add(class, name, "", why));
        }
    }
}

fn effects(promised: Group, case: &Case<'_>, found: &mut impl FnMut(Class, String)) {
    if promised.once && case.effects.len() > 1 {
        let nodes: Vec<&str> = case.effects.iter().map(|effect| effect.node).collect();
        found(Class::EffectDoubled, format!("{} effects, of {}", nodes.len(), nodes.join(", ")));
    }
    if promised.once && !case.effects.is_empty() && case.is_given_up() {
        found(Class::GivenUpEarly, "its effect is there, and yet it counts as failed".to_owned());
    }
}

fn again(book: &Book<'_>, promised: Group, case: &Case<'_>, found: &mut impl FnMut(Class, String)) {
    if !promised.again_only_with_cause {
        return;
    }
    for pair in case.runs.windows(2) {
        if let [before, next] = pair
            && !had_cause(book, before, next)
        {
            let why = format!(
                "began on {} at {} and again on {} at {}",
                before.began.node, before.began.at, next.began.node, next.began.at
            );
            found(Class::RunAgain, why);
        }
    }
}

/// A run has cause to follow another if that had failed, if its node may have lost the lease on it since, or if this
/// one's node was given the message before and does not know yet that it has lost it.
fn had_cause(book: &Book<'_>, before: &Run<'_>, next: &Run<'_>) -> bool {
    let failed = before.ended.is_some_and(|(place, how)| place < next.began.place && how != End::Succeeded);
    let (from, to) = (before.began.at, next.began.at);
    failed || book.in_trouble(before.began.node, from, to) || book.in_trouble(next.began.node, to, to)
}

fn attempts(book: &Book<'_>, promised: Group, case: &Case<'_>, found: &mut impl FnMut(Class, String)) {
    let Some(allowed) = promised.attempts.map(|allowed| allowed as usize) else { return };
    let (failed, dropped) = (case.ended(End::Failed), case.ended(End::Dropped));
    match case.stands {
        Some(Final::Exhausted) if failed + dropped < allowed => {
            found(
                Class::GivenUpEarly,
                format!("{failed} of {allowed} attempts failed, {dropped} were dropped"),
            );
        }
        Some(Final::Failed) if case.ended(End::Permanent) == 0 && !case.store_refused => {
            found(Class::GivenUpEarly, "no handler said that it can never succeed".to_owned());
        }
        _ => {}
    }
    let calm = || case.runs.iter().all(|run| !book.in_trouble(run.began.node, run.began.at, u64::MAX));
    if failed > allowed && calm() {
        found(Class::TriedTooOften, format!("{failed} attempts failed; {allowed} are allowed"));
    }
}

fn sends(message: &Message<'_>, allowed: u32, found: &mut impl FnMut(Class, String)) {
    if message.outbox() == Some(Final::Exhausted) && message.sends_refused < allowed {
        let refused = message.sends_refused;
        found(Class::GivenUpEarly, format!("the broker refused it {refused} times; {allowed} are allowed"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{began, breaches, ended, stands};
    use crate::{Event, Ledger};

    fn ledger(promised: Group) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.group("g", promised);
        ledger.group("", Group { attempts: Some(2), ..Group::plain() });
        ledger.note(1, Event::publish("m", &["g"]));
        ledger
    }

    #[test]
    fn two_effects_are_one_too_many_only_where_one_is_promised() {
        for (promised, expected) in [(Group::once(), &[Class::EffectDoubled][..]), (Group::plain(), &[])] {
            let mut ledger = ledger(promised);
            ledger.note(5, Event::effect("m", "g", "n", 1));
            assert!(breaches(&ledger).is_empty());
            ledger.note(6, Event::effect("m", "g", "n", 1));
            assert_eq!(breaches(&ledger), expected);
        }
    }

    #[test]
    fn a_second_run_needs_a_cause() {
        type Cause = fn(&mut Ledger);
        let died: Cause = |ledger| ledger.note(7, Event::Died { node: "n".into() });
        let failed: Cause = |ledger| ledger.note(7, ended("m", "g", 1, End::Failed));
        let called_off: Cause = |ledger| ledger.note(7, ended("m", "g", 1, End::CalledOff));
        let late: Cause = |ledger| ledger.note(12, ended("m", "g", 1, End::Failed));
        let succeeded: Cause = |ledger| ledger.note(7, ended("m", "g", 1, End::Succeeded));
        let trouble: Cause = |ledger| {
            ledger.note(2, Event::Trouble { node: "n".into() });
            ledger.note(6, Event::Recovered { node: "n".into() });
        };
        let past_trouble: Cause = |ledger| {
            ledger.note(2, Event::Trouble { node: "n".into() });
            ledger.note(4, Event::Recovered { node: "n".into() });
        };
        let two_troubles: Cause = |ledger| {
            for at in [2, 3] {
                ledger.note(at, Event::Trouble { node: "n".into() });
            }
            for at in [4, 6] {
                ledger.note(at, Event::Recovered { node: "n".into() });
            }
        };
        let dead_for_good: Cause = |ledger| {
            ledger.note(2, Event::Trouble { node: "n".into() });
            ledger.note(3, Event::Died { node: "n".into() });
            ledger.note(4, Event::Recovered { node: "n".into() });
        };
        let does_not_know: Cause = |ledger| {
            ledger.note(2, Event::Trouble { node: "other".into() });
            ledger.note(11, Event::Recovered { node: "other".into() });
        };
        let knows: Cause = |ledger| {
            ledger.note(2, Event::Trouble { node: "other".into() });
            ledger.note(9, Event::Recovered { node: "other".into() });
        };
        for (index, (cause, fine)) in [
            (died, true),
            (failed, true),
            (called_off, true),
            (late, false),
            (succeeded, false),
            (trouble, true),
            (past_trouble, false),
            (two_troubles, true),
            (dead_for_good, true),
            (does_not_know, true),
            (knows, false),
        ]
        .into_iter()
        .enumerate()
        {
            let mut ledger = ledger(Group::plain());
            ledger.note(5, began("m", "g", "n", 1));
            ledger.note(10, began("m", "g", "other", 2));
            ledger.note(13, Event::effect("m", "g", "other", 1));
            cause(&mut ledger);
            let expected: &[Class] = if fine { &[] } else { &[Class::RunAgain] };
            assert_eq!(breaches(&ledger), expected, "case {index}");
        }
    }

    #[test]
    fn nothing_begins_before_it_is_due() {
        let mut ledger = ledger(Group::plain());
        let groups = [("g".to_owned(), Vec::new())].into();
        ledger.note(2, Event::Publish { message: "m".into(), groups, key: None, due: Some(10) });
        ledger.note(10, began("m", "g", "n", 1));
        ledger.note(11, Event::effect("m", "g", "n", 1));
        assert!(breaches(&ledger).is_empty());
        ledger.note(9, began("m", "g", "n", 2));
        ledger.note(9, ended("m", "g", 2, End::Failed));
        assert_eq!(breaches(&ledger), [Class::Early]);
    }

    #[test]
    fn the_policy_is_kept_to_on_both_sides() {
        let promised = Group { attempts: Some(2), ..Group::plain() };
        let mut short = ledger(promised);
        short.note(5, began("m", "g", "n", 1));
        short.note(6, ended("m", "g", 1, End::Failed));
        short.note(99, stands("m", "g", Final::Exhausted));
        assert_eq!(breaches(&short), [Class::GivenUpEarly]);
        short.note(7, began("m", "g", "n", 2));
        short.note(8, ended("m", "g", 2, End::Dropped));
        assert!(breaches(&short).is_empty(), "a dropped run may have been a time-out");
        for run in 3..5 {
            short.note(9, began("m", "g", "n", run));
            short.note(9, ended("m", "g", run, End::Failed));
        }
        assert_eq!(breaches(&short), [Class::TriedTooOften]);
        short.note(7, Event::Died { node: "n".into() });
        assert!(breaches(&short).is_empty(), "an attempt of a dead node may not have been counted");
    }

    #[test]
    fn only_a_handler_or_a_refusal_gives_up_for_good() {
        let promised = Group { attempts: Some(2), ..Group::plain() };
        let mut failed = ledger(promised);
        failed.note(5, began("m", "g", "n", 1));
        failed.note(6, ended("m", "g", 1, End::Failed));
        failed.note(99, stands("m", "g", Final::Failed));
        assert_eq!(breaches(&failed), [Class::GivenUpEarly]);
        let mut refused = failed.clone();
        refused.note(7, Event::StoreRefused { message: "m".into(), group: "g".into() });
        assert!(breaches(&refused).is_empty());
        failed.note(7, ended("m", "g", 1, End::Permanent));
        assert!(breaches(&failed).is_empty());
        let mut effect = ledger(Group::once());
        effect.note(5, Event::effect("m", "g", "n", 1));
        effect.note(99, stands("m", "g", Final::Exhausted));
        assert_eq!(breaches(&effect), [Class::GivenUpEarly]);
    }

    #[test]
    fn outbox_parks_only_what_the_broker_rejected_often_enough() {
        let mut ledger = ledger(Group::plain());
        ledger.note(9, stands("m", "", Final::Exhausted));
        ledger.note(5, Event::SendRefused { message: "m".into() });
        assert_eq!(breaches(&ledger), [Class::GivenUpEarly]);
        ledger.note(6, Event::SendRefused { message: "m".into() });
        assert!(breaches(&ledger).is_empty());
    }
}
