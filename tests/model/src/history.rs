//! Plays a history on the model and on a store at the same time, and compares every answer.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use cap_core::message::{Headers, Message};
use cap_core::storage::{
    Digest, Entry, Identity, Lease, NewIncoming, NewOutgoing, Owner, Reason, RowCompletion, Side,
    Storage as _, Stored, WriteBatch, WriteReport,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;

use crate::Subject;
use crate::model::{Model, Moment};
use crate::rows::{check_details, check_rows};
use crate::step::{Entrance, GROUPS, HOUR, How, Incoming, KEEP, LEASE, NODES, Outgoing, Start, Step, Word};

mod claims;
mod people;

/// No two steps happen at the same moment.
const TICK: Duration = Duration::from_millis(1);

/// All rows are compared after so many steps, and at the end.
const LOOK_EVERY: usize = 6;

type Judged<T = ()> = Result<T, TestCaseError>;

/// A lease as a node has it, by the count of the model and by that of the store. The two need not be the same numbers.
#[derive(Debug, Clone, Copy)]
struct Given {
    side: Side,
    node: usize,
    model: Lease,
    real: Lease,
}

/// An insert, to be repeated.
#[derive(Debug, Clone)]
enum Inserted {
    Outgoing(usize, NewOutgoing),
    Incoming(usize, NewIncoming),
}

/// A history under way.
struct History<'a, S> {
    subject: &'a S,
    model: Model,
    now: Moment,
    next_id: i64,
    given: Vec<Given>,
    inserted: Vec<Inserted>,
}

/// Plays a whole history on an empty store.
///
/// # Errors
///
/// When the store does anything but what the model does.
pub async fn play<S: Subject>(subject: &S, steps: &[Step]) -> Judged {
    let mut history = History {
        subject,
        model: Model::default(),
        now: Moment::ZERO,
        next_id: 1,
        given: Vec::new(),
        inserted: Vec::new(),
    };
    for (step, number) in steps.iter().zip(1..) {
        history.tick(TICK).await?;
        history.take(step).await?;
        if number % LOOK_EVERY == 0 {
            check_rows(&history.model, subject).await?;
        }
    }
    check_rows(&history.model, subject).await?;
    check_details(&history.model, subject).await?;
    history.claim_all().await
}

fn broken(error: impl Display) -> TestCaseError {
    TestCaseError::fail(format!("the store fails: {error}"))
}

fn owner(node: usize) -> Owner {
    let (name, version) = NODES[node];
    Owner { node: name.into(), version: version.into(), lease: LEASE }
}

fn message(id: Option<&str>) -> Arc<Message> {
    let mut headers: Headers = [("cap-msg-name", "order.created")].into_iter().collect();
    if let Some(id) = id {
        headers.insert("cap-msg-id", id);
    }
    Arc::new(Message::new(headers, &b"{}"[..]))
}

impl<S: Subject> History<'_, S> {
    /// A little time passes between any two steps; only a clock that may not have moved must be told.
    async fn tick(&mut self, time: Duration) -> Judged {
        self.now += time;
        if S::COARSE { self.subject.pass(time).await.map_err(broken) } else { Ok(()) }
    }

    async fn take(&mut self, step: &Step) -> Judged {
        match step {
            Step::Pass(times) => {
                let time = HOUR * 2 * *times;
                self.now += time;
                self.subject.pass(time).await.map_err(broken)
            }
            Step::Publish { node, messages, how } => self.publish(*node, messages, *how).await,
            Step::Receive { node, messages } => self.receive(*node, messages).await,
            Step::Repeat { earlier } => self.repeat(*earlier).await,
            Step::Clash { earlier } => self.clash(*earlier).await,
            Step::Claim { node, side, groups, limit } => self.claim(*node, *side, groups, *limit).await,
            Step::Deliver { node, copies } => self.deliver(*node, copies).await,
            Step::Complete { side, words } => self.complete(*side, words).await,
            Step::Renew { side, leases } => self.renew(*side, leases).await,
            Step::Crash { node } => {
                self.given.retain(|given| given.node != *node);
                Ok(())
            }
            Step::Rerun { side, rows, among, change } => self.rerun(*side, rows, *among, change).await,
            Step::Cancel { rows } => self.cancel(rows).await,
            Step::Delete { side, rows, among } => self.delete(*side, rows, *among).await,
            Step::Expire { limit } => self.expire(*limit).await,
        }
    }

    fn new_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn outgoing(&mut self, drawn: &Outgoing) -> NewOutgoing {
        let id = self.new_id();
        let message_id = drawn.id.map_or_else(|| id.to_string(), |which| format!("m{which}"));
        let (delay, held) = match drawn.start {
            Start::Held => (None, true),
            Start::Free => (None, false),
            Start::Delayed(hours) => (Some(HOUR * hours), false),
        };
        NewOutgoing { id, message: message(Some(&message_id)), delay, held }
    }

    fn incoming(&mut self, drawn: &Incoming) -> NewIncoming {
        let id = self.new_id();
        let message_id = drawn.id.map(|which| format!("m{which}"));
        let entry = match drawn.entry {
            Entrance::Held => Entry::Scheduled { held: true },
            Entrance::Free => Entry::Scheduled { held: false },
            Entrance::Parked(notify) => {
                let error = "cannot be read".to_owned();
                Entry::Parked { reason: Reason::Undecodable, error, keep: KEEP, notify }
            }
        };
        let digest = drawn.twin.map(|twin| Digest::of("order.created", &[twin], None));
        let identity = Identity { digest, apart: drawn.apart && digest.is_some() };
        NewIncoming {
            id,
            group: GROUPS[drawn.group].into(),
            message: message(message_id.as_deref()),
            entry,
            identity,
        }
    }

    async fn write(&self, node: usize, batch: &WriteBatch) -> Judged<WriteReport> {
        self.subject.store().write(&owner(node), batch).await.map_err(broken)
    }

    async fn publish(&mut self, node: usize, messages: &[Outgoing], how: How) -> Judged {
        let mut outgoing: Vec<_> = messages.iter().map(|drawn| self.outgoing(drawn)).collect();
        if how != How::Alone {
            // A plain transaction does not know who will work on its messages.
            for new in &mut outgoing {
                new.held = false;
            }
            let commit = how == How::Committed;
            let stored =
                self.subject.publish_within(&owner(node), &outgoing, commit).await.map_err(broken)?;
            if !commit {
                return Ok(());
            }
            return self.expect_published(node, &outgoing, &stored);
        }
        let batch = WriteBatch { outgoing, ..WriteBatch::default() };
        let report = self.write(node, &batch).await?;
        self.expect_published(node, &batch.outgoing, &report.outgoing)
    }

    fn expect_published(&mut self, node: usize, outgoing: &[NewOutgoing], stored: &[Stored]) -> Judged {
        let expected: Vec<Stored> =
            outgoing.iter().map(|new| self.model.publish(self.now, &owner(node), new)).collect();
        prop_assert_eq!(expected.as_slice(), stored, "publishing {:?}", outgoing);
        for (new, stored) in outgoing.iter().zip(stored) {
            self.inserted.push(Inserted::Outgoing(node, new.clone()));
            self.give_first(Side::Outbox, node, new.id, new.held && *stored == Stored::New);
        }
        Ok(())
    }

    async fn receive(&mut self, node: usize, messages: &[Incoming]) -> Judged {
        let incoming = messages.iter().map(|drawn| self.incoming(drawn)).collect();
        let batch = WriteBatch { incoming, ..WriteBatch::default() };
        let report = self.write(node, &batch).await?;
        let expected: Vec<Stored> =
            batch.incoming.iter().map(|new| self.model.receive(self.now, &owner(node), new)).collect();
        prop_assert_eq!(&expected, &report.incoming, "receiving {:?}", batch.incoming);
        for (new, stored) in batch.incoming.into_iter().zip(expected) {
            let holds =
                matches!(new.entry, Entry::Scheduled { held: true } | Entry::Parked { notify: true, .. });
            self.give_first(Side::Inbox, node, new.id, holds && stored == Stored::New);
            self.inserted.push(Inserted::Incoming(node, new));
        }
        Ok(())
    }

    fn give_first(&mut self, side: Side, node: usize, id: i64, held: bool) {
        if held {
            let lease = Lease { id, epoch: 1 };
            self.given.push(Given { side, node, model: lease, real: lease });
        }
    }

    /// An earlier insert whose row is there, as it was stored: nobody repeats what an operator has changed since.
    fn earlier(&self, pick: Index) -> Option<Inserted> {
        let holds = |side, id, message: &Arc<Message>| {
            self.model.row(side, id).is_some_and(|row| row.message == *message)
        };
        let is_there = |inserted: &&Inserted| match inserted {
            Inserted::Outgoing(_, new) => holds(Side::Outbox, new.id, &new.message),
            Inserted::Incoming(_, new) => holds(Side::Inbox, new.id, &new.message),
        };
        let there: Vec<&Inserted> = self.inserted.iter().filter(is_there).collect();
        (!there.is_empty()).then(|| (*pick.get(&there)).clone())
    }

    async fn repeat(&mut self, pick: Index) -> Judged {
        let Some(earlier) = self.earlier(pick) else { return Ok(()) };
        let (node, batch) = match earlier {
            Inserted::Outgoing(node, new) => {
                (node, WriteBatch { outgoing: vec![new], ..WriteBatch::default() })
            }
            Inserted::Incoming(node, new) => {
                (node, WriteBatch { incoming: vec![new], ..WriteBatch::default() })
            }
        };
        let report = self.write(node, &batch).await?;
        let all_known =
            report.outgoing.iter().chain(&report.incoming).all(|stored| *stored == Stored::Duplicate);
        prop_assert!(all_known, "{:?} was there already: {:?}", batch, report);
        Ok(())
    }

    /// Nothing of such a batch is stored, as one message would take the place of another.
    async fn clash(&mut self, pick: Index) -> Judged {
        let Some(earlier) = self.earlier(pick) else { return Ok(()) };
        let id = self.new_id();
        let beside = NewOutgoing { id, message: message(Some(&id.to_string())), delay: None, held: false };
        let other = message(Some("quite another"));
        let mut batch = WriteBatch { outgoing: vec![beside], ..WriteBatch::default() };
        let node = match earlier {
            Inserted::Outgoing(node, new) => {
                batch.outgoing.push(NewOutgoing { message: other, ..new });
                node
            }
            Inserted::Incoming(node, new) => {
                batch.incoming.push(NewIncoming { message: other, ..new });
                node
            }
        };
        let written = self.subject.store().write(&owner(node), &batch).await;
        prop_assert!(written.is_err(), "a row id was used for two messages: {:?}", batch);
        Ok(())
    }

    /// The leases that words are said under, each for a row of its own.
    fn speakers<'w>(&self, side: Side, words: &'w [Word]) -> Vec<(Given, &'w Word)> {
        let mut rows = BTreeSet::new();
        let pick = |word: &'w Word| {
            let fits =
                |given: &&Given| given.side == side && (!word.live || self.model.is_live(side, given.model));
            let given: Vec<&Given> = self.given.iter().filter(fits).collect();
            (!given.is_empty()).then(|| (**word.lease.get(&given), word))
        };
        words.iter().filter_map(pick).filter(|(given, _)| rows.insert(given.model.id)).collect()
    }

    async fn complete(&mut self, side: Side, words: &[Word]) -> Judged {
        let speakers = self.speakers(side, words);
        // Each node speaks for itself.
        for node in 0..NODES.len() {
            let of_node: Vec<_> = speakers.iter().filter(|(given, _)| given.node == node).copied().collect();
            if !of_node.is_empty() {
                self.complete_as(node, side, &of_node).await?;
            }
        }
        Ok(())
    }

    async fn complete_as(&mut self, node: usize, side: Side, words: &[(Given, &Word)]) -> Judged {
        // Nodes do not speak at the same moment either.
        self.tick(TICK).await?;
        let mut row_completions = Vec::new();
        for (given, word) in words {
            let count = if side == Side::Inbox { word.publishes } else { 0 };
            let free = Outgoing { id: None, start: Start::Free };
            let publishes = (0..count).map(|_| self.outgoing(&free)).collect();
            row_completions.push(RowCompletion {
                lease: given.real,
                outcome: word.outcome.clone(),
                publishes,
            });
        }
        let batch = match side {
            Side::Outbox => WriteBatch { completed_outgoing: row_completions, ..WriteBatch::default() },
            Side::Inbox => WriteBatch { completed_incoming: row_completions, ..WriteBatch::default() },
        };
        let report = self.write(node, &batch).await?;
        let row_completions = batch.completed_outgoing.iter().chain(&batch.completed_incoming);
        let held = report.completed_outgoing.iter().chain(&report.completed_incoming);
        for (((given, word), row_completion), held) in words.iter().zip(row_completions).zip(held) {
            let applied = self.model.complete(self.now, &owner(node), side, given.model, &word.outcome);
            prop_assert_eq!(applied, *held, "{:?} under {:?}", word.outcome, given);
            if applied {
                for new in &row_completion.publishes {
                    self.model.publish(self.now, &owner(node), new);
                }
            }
        }
        Ok(())
    }

    async fn renew(&mut self, side: Side, leases: &[Index]) -> Judged {
        let of_side: Vec<Given> = self.given.iter().filter(|given| given.side == side).copied().collect();
        if of_side.is_empty() {
            return Ok(());
        }
        let chosen: Vec<Given> = leases.iter().map(|pick| *pick.get(&of_side)).collect();
        let real: Vec<Lease> = chosen.iter().map(|given| given.real).collect();
        let renewed = self.subject.store().renew(&owner(0), side, &real).await.map_err(broken)?;
        let expected: Vec<bool> =
            chosen.iter().map(|given| self.model.renew(self.now, &owner(0), side, given.model)).collect();
        prop_assert_eq!(expected, renewed, "renewing {:?}", chosen);
        Ok(())
    }
}
