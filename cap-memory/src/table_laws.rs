//! Properties of a table that hold after any history of operations, at any times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::row::Moment;
use super::table::Table;
use cap_adapter::message::{Headers, Message};
use cap_adapter::monitor::Change;
use cap_adapter::storage::{
    ClaimRequest, Entry, Expiry, Identity, Lease, NewIncoming, Owner, Reason, Retention, RowOutcome, Side,
    Status,
};

const LEASE: Duration = Duration::from_secs(10);
const KEEP: Duration = Duration::from_secs(30);
const NODES: [&str; 3] = ["a", "b", "c"];

/// One thing that a node or an operator does.
#[derive(Debug, Clone, Copy)]
enum Step {
    Wait(u64),
    Insert {
        id: i64,
        message: u8,
        entry: u8,
        node: usize,
    },
    Claim {
        limit: usize,
        node: usize,
    },
    /// A node uses a lease that it got at some time, which may be lost.
    Complete {
        given: prop::sample::Index,
        outcome: u8,
    },
    Renew {
        given: prop::sample::Index,
    },
    Rerun {
        id: i64,
    },
    Delete {
        id: i64,
    },
    Expire {
        limit: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1..12_i64;
    let node = 0..NODES.len();
    prop_oneof![
        2 => (0..15_u64).prop_map(Step::Wait),
        3 => (id.clone(), 0..8_u8, 0..4_u8, node.clone())
            .prop_map(|(id, message, entry, node)| Step::Insert { id, message, entry, node }),
        4 => (0..4_usize, node).prop_map(|(limit, node)| Step::Claim { limit, node }),
        4 => (any::<prop::sample::Index>(), 0..9_u8)
            .prop_map(|(given, outcome)| Step::Complete { given, outcome }),
        2 => any::<prop::sample::Index>().prop_map(|given| Step::Renew { given }),
        1 => id.clone().prop_map(|id| Step::Rerun { id }),
        1 => id.prop_map(|id| Step::Delete { id }),
        1 => (0..3_usize).prop_map(|limit| Step::Expire { limit }),
    ]
}

fn outcome(which: u8) -> RowOutcome {
    let error = || "no".to_owned();
    let failed = |counted, notify| RowOutcome::Failed {
        reason: Reason::Exhausted,
        error: error(),
        counted,
        keep: KEEP,
        notify,
    };
    let succeeded = |retention| RowOutcome::Succeeded { retention, reason: None };
    match which {
        0 => succeeded(Retention::Forget),
        1 => succeeded(Retention::Keep(KEEP)),
        2 => succeeded(Retention::Delete),
        3 => RowOutcome::Retry { after: LEASE / 2, hold: false, error: error() },
        4 => RowOutcome::Retry { after: Duration::ZERO, hold: true, error: error() },
        5 => failed(true, true),
        6 => failed(false, false),
        7 => RowOutcome::Notified,
        _ => RowOutcome::Release { after: Duration::ZERO },
    }
}

fn new_row(id: i64, message: u8, entry: u8) -> NewIncoming {
    let mut headers = Headers::new();
    // Number 0 is a message without an id.
    if message > 0 {
        headers.insert("cap-msg-id", message.to_string());
    }
    let entry = match entry {
        0 => Entry::Scheduled { held: false },
        1 => Entry::Scheduled { held: true },
        notify => {
            let reason = Reason::Undecodable;
            Entry::Parked { reason, error: "no".to_owned(), keep: KEEP, notify: notify == 3 }
        }
    };
    NewIncoming {
        id,
        group: "g".into(),
        message: Arc::new(Message::new(headers, "")),
        entry,
        identity: Identity::default(),
    }
}

/// The table, the time, and the observations so far.
struct History {
    table: Table,
    now: Moment,
    /// Every lease ever given, with its node.
    given: Vec<(Lease, usize)>,
    /// The current lease of each row, as far as the nodes know, and when it expires at the latest.
    holders: BTreeMap<i64, (Lease, Moment)>,
    /// Rows that succeeded and were not run again.
    done: BTreeSet<i64>,
    /// Attempts and epoch of each row when it was last looked at.
    seen: BTreeMap<i64, (u32, i32)>,
}

impl History {
    fn new() -> Self {
        Self {
            table: Table::default(),
            now: Moment::ZERO,
            given: Vec::new(),
            holders: BTreeMap::new(),
            done: BTreeSet::new(),
            seen: BTreeMap::new(),
        }
    }

    fn owner(node: usize) -> Owner {
        Owner { node: NODES[node].into(), version: "v1".into(), lease: LEASE }
    }

    fn give(&mut self, lease: Lease, node: usize) {
        self.given.push((lease, node));
        self.holders.insert(lease.id, (lease, self.now + LEASE));
    }

    fn forget(&mut self, id: i64) {
        self.holders.remove(&id);
        self.done.remove(&id);
        self.seen.remove(&id);
        // A row of the same id may come again, with leases of the same numbers: those of the old one are no
        // longer the nodes' to use, as ids are never used twice outside of this test.
        self.given.retain(|(lease, _)| lease.id != id);
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Wait(seconds) => self.now += Duration::from_secs(seconds),
            Step::Insert { id, message, entry, node } => self.insert(node, &new_row(id, message, entry)),
            Step::Claim { limit, node } => self.claim(limit, node),
            Step::Complete { given, outcome: which } => self.complete(given, &outcome(which)),
            Step::Renew { given } => self.renew(given),
            Step::Rerun { id } => {
                if self.table.rerun(self.now, id, &Change::default()) {
                    self.holders.remove(&id);
                    self.done.remove(&id);
                }
            }
            Step::Delete { id } => {
                let held = self.table.row(id).is_some_and(|row| row.is_held(self.now));
                let deleted = self.table.delete_idle(self.now, id);
                assert!(!(held && deleted), "a row in work was deleted");
                if deleted {
                    self.forget(id);
                }
            }
            Step::Expire { limit } => self.expire(limit),
        }
    }

    fn insert(&mut self, node: usize, new: &NewIncoming) {
        let before = self.table.rows().count();
        let stored = self.table.insert_incoming(self.now, &Self::owner(node), new);
        let grown = self.table.rows().count() - before;
        assert_eq!(grown == 1, stored == cap_adapter::storage::Stored::New);
        let held = matches!(new.entry, Entry::Scheduled { held: true } | Entry::Parked { notify: true, .. });
        if grown == 1 && held {
            self.give(Lease { id: new.id, epoch: 1 }, node);
        }
    }

    fn claim(&mut self, limit: usize, node: usize) {
        let request = ClaimRequest::new(Side::Inbox, vec!["g".into()], limit);
        let due: Vec<i64> = due(&self.table, self.now);
        let claims = self.table.claim(self.now, &Self::owner(node), &request);
        assert!(claims.rows.len() == due.len().min(limit), "all that is due, up to the limit");
        for claimed in &claims.rows {
            let id = claimed.lease.id;
            if let Some((holder, until)) = self.holders.get(&id) {
                assert!(*until <= self.now, "{id} is held under {holder:?} until {until:?}");
            }
            assert!(!self.done.contains(&id), "{id} had succeeded");
            self.give(claimed.lease, node);
        }
        if due.len() > limit {
            assert_eq!(claims.next_due, Some(Duration::ZERO));
        }
    }

    fn complete(&mut self, given: prop::sample::Index, outcome: &RowOutcome) {
        if self.given.is_empty() {
            return;
        }
        let (lease, node) = *given.get(&self.given);
        let current = self.holders.get(&lease.id).is_some_and(|(holder, _)| *holder == lease);
        let held = self.table.complete(self.now, &Self::owner(node), lease, outcome);
        assert_eq!(held, current, "{lease:?} speaks if and only if it is the last one given");
        if !held {
            return;
        }
        self.holders.remove(&lease.id);
        match outcome {
            RowOutcome::Succeeded { retention: Retention::Delete, .. } => self.forget(lease.id),
            RowOutcome::Succeeded { .. } => {
                self.done.insert(lease.id);
            }
            RowOutcome::Retry { hold: true, .. } | RowOutcome::Failed { notify: true, .. } => {
                self.holders.insert(lease.id, (lease, self.now + LEASE));
            }
            _ => {}
        }
    }

    fn renew(&mut self, given: prop::sample::Index) {
        if self.given.is_empty() {
            return;
        }
        let (lease, node) = *given.get(&self.given);
        let current = self.holders.get(&lease.id).is_some_and(|(holder, _)| *holder == lease);
        assert_eq!(self.table.renew(self.now, &Self::owner(node), lease), current);
        if current {
            self.holders.insert(lease.id, (lease, self.now + LEASE));
        }
    }

    fn expire(&mut self, limit: usize) {
        let before: BTreeMap<i64, Status> = self.table.rows().map(|row| (row.id, row.status())).collect();
        let gone = self.table.delete_expired(self.now, &Expiry { succeeded: KEEP, limit });
        let left: BTreeSet<i64> = self.table.rows().map(|row| row.id).collect();
        let deleted: Vec<i64> = before.keys().copied().filter(|id| !left.contains(id)).collect();
        assert_eq!(gone, deleted.len() as u64);
        assert!(deleted.len() <= limit);
        for id in deleted {
            assert!(matches!(before[&id], Status::Succeeded | Status::Failed), "{id} was not finished");
            self.forget(id);
        }
    }

    /// Checks the properties between two steps.
    fn check(&mut self) {
        for row in self.table.rows() {
            let attempts = row.state.as_ref().map(|state| state.attempts);
            let (before, epoch) = self.seen.get(&row.id).copied().unwrap_or_default();
            let attempts = attempts.unwrap_or(before);
            assert!(attempts >= before, "attempts of {} shrank", row.id);
            assert!(row.epoch >= epoch, "the epoch of {} fell", row.id);
            assert_eq!(row.attempts.len(), attempts as usize, "every attempt of {} is recorded", row.id);
            let (succeeded, done) = (row.status() == Status::Succeeded, self.done.contains(&row.id));
            assert_eq!(succeeded, done, "{} succeeded, or was run again", row.id);
            self.seen.insert(row.id, (attempts, row.epoch));
        }
        self.table.check_index();
    }
}

fn due(table: &Table, now: Moment) -> Vec<i64> {
    let due = |row: &&super::row::Row| row.state.as_ref().and_then(|s| s.due).is_some_and(|due| due <= now);
    table.rows().filter(due).map(|row| row.id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_laws(steps in prop::collection::vec(step(), 1..60)) {
        let mut history = History::new();
        for step in steps {
            history.run(step);
            history.check();
        }
    }
}
