//! One table of the in-memory storage: a pure state machine that takes the time as an argument.
//!
//! Nothing here locks, waits or reads a clock, so that its rules can be tested with random histories.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::index::Index;
use super::row::{Attempt, Lane, Moment, Row, Started, State};
use cap_adapter::message::Message;
use cap_adapter::storage::{
    ClaimRequest, Claimed, Claims, Entry, Expiry, Identity, Lease, Meeting, NewIncoming, NewOutgoing, Owner,
    Reason, Side, StartMark, Status, Stored, Suspect, crash_text,
};

/// Every row of one side.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<i64, Row>,
    /// The rows of each message id: one in the outbox, one for each group in the inbox.
    by_message: HashMap<String, Vec<i64>>,
    index: Index,
}

impl Table {
    pub(super) fn row(&self, id: i64) -> Option<&Row> {
        self.rows.get(&id)
    }

    /// Every row before this id, the newest first.
    pub(super) fn before(&self, id: Option<i64>) -> impl Iterator<Item = &Row> {
        let rows = match id {
            Some(id) => self.rows.range(..id),
            None => self.rows.range(..),
        };
        rows.rev().map(|(_, row)| row)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// For how long the oldest waiting row of each group has been due.
    pub(super) fn oldest_waiting(&self, now: Moment) -> BTreeMap<&str, Duration> {
        let mut oldest = BTreeMap::new();
        for ((_, group), due) in self.index.first_due_of_each() {
            if let Some(waiting) = now.checked_sub(due) {
                let of_group = oldest.entry(&**group).or_insert(waiting);
                *of_group = waiting.max(*of_group);
            }
        }
        oldest
    }

    /// Every row of a message id, by row id.
    pub(super) fn of_message(&self, message_id: &str) -> Vec<&Row> {
        let ids = self.by_message.get(message_id).map_or(&[][..], Vec::as_slice);
        let mut rows: Vec<_> = ids.iter().filter_map(|id| self.rows.get(id)).collect();
        rows.sort_by_key(|row| row.id);
        rows
    }

    /// Inserts a message into the outbox.
    pub(super) fn insert_outgoing(&mut self, now: Moment, owner: &Owner, new: &NewOutgoing) -> Stored {
        let mut state = match new.delay {
            Some(delay) => State::fresh(Status::Delayed, Some(now.saturating_add(delay))),
            None => State::fresh(Status::Scheduled, Some(now)),
        };
        let held = new.held && new.delay.is_none();
        if held {
            state.hold(&owner.node, now.saturating_add(owner.lease));
        }
        self.insert(Row {
            id: new.id,
            version: Arc::clone(&owner.version),
            group: Arc::from(""),
            message: Arc::clone(&new.message),
            message_id: new.message.id().map(str::to_owned),
            digest: None,
            added: now,
            epoch: i32::from(held),
            state: Some(state),
            attempts: Vec::new(),
        })
    }

    /// Inserts a message into the inbox.
    pub(super) fn insert_incoming(&mut self, now: Moment, owner: &Owner, new: &NewIncoming) -> Stored {
        let mut state = match &new.entry {
            Entry::Scheduled { .. } => State::fresh(Status::Scheduled, Some(now)),
            Entry::Parked { reason, error, keep, notify } => State {
                reason: Some(*reason),
                last_error: Some(error.clone()),
                expires: Some(now.saturating_add(*keep)),
                notice: *notify,
                ..State::fresh(Status::Failed, None)
            },
        };
        let held = matches!(new.entry, Entry::Scheduled { held: true } | Entry::Parked { notify: true, .. });
        if held {
            state.hold(&owner.node, now.saturating_add(owner.lease));
        }
        if self.rows.contains_key(&new.id) {
            return Stored::Duplicate;
        }
        if let Some(known) = self.make_way(new) {
            return known;
        }
        self.insert(Row {
            id: new.id,
            version: Arc::clone(&owner.version),
            group: Arc::clone(&new.group),
            message: Arc::clone(&new.message),
            message_id: new.stored_message_id().map(Cow::into_owned),
            digest: new.identity.digest,
            added: now,
            epoch: i32::from(held),
            state: Some(state),
            attempts: Vec::new(),
        })
    }

    fn insert(&mut self, row: Row) -> Stored {
        if self.rows.contains_key(&row.id) {
            return Stored::Duplicate;
        }
        if let Some(message_id) = &row.message_id {
            if self.holder(message_id, &row.group).is_some() {
                return Stored::Duplicate;
            }
            self.by_message.entry(message_id.clone()).or_default().push(row.id);
        }
        self.index.add(&row);
        self.rows.insert(row.id, row);
        Stored::New
    }

    /// The row that has this message id in this group.
    fn holder(&self, message_id: &str, group: &str) -> Option<&Row> {
        let ids = self.by_message.get(message_id)?;
        ids.iter().filter_map(|id| self.rows.get(id)).find(|row| *row.group == *group)
    }

    /// Decides what a message is that has the id of an existing row; a row that was never handled gives up the id.
    fn make_way(&mut self, new: &NewIncoming) -> Option<Stored> {
        let holder = self.holder(&new.stored_message_id()?, &new.group)?;
        let (id, meeting) = (holder.id, holder.as_holder().meets(&new.identity));
        let is_known = |own: String| self.holder(&own, &new.group).is_some();
        if meeting == Meeting::Same || new.own_message_id().is_some_and(is_known) {
            return Some(Stored::Duplicate);
        }
        if meeting == Meeting::Conflict {
            return Some(Stored::Conflict);
        }
        self.set_aside(id);
        None
    }

    /// Gives a row a generated message id, or none if that is in use, so that another message can have its current
    /// one.
    fn set_aside(&mut self, id: i64) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        let Some(taken) = row.message_id.take() else { return };
        let identity = Identity { digest: row.digest, apart: true };
        let (own, group) = (identity.own_message_id(&taken), Arc::clone(&row.group));
        self.forget_message_id(&taken, id);
        let Some(own) = own.filter(|own| self.holder(own, &group).is_none()) else { return };
        self.by_message.entry(own.clone()).or_default().push(id);
        if let Some(row) = self.rows.get_mut(&id) {
            row.message_id = Some(own);
        }
    }

    fn forget_message_id(&mut self, message_id: &str, row: i64) {
        if let Some(ids) = self.by_message.get_mut(message_id) {
            ids.retain(|other| *other != row);
            if ids.is_empty() {
                self.by_message.remove(message_id);
            }
        }
    }

    /// Asserts that the indexes and the message ids match the rows.
    #[cfg(test)]
    pub(super) fn check_index(&self) {
        let mut afresh = Index::default();
        self.rows.values().for_each(|row| afresh.add(row));
        assert_eq!(afresh, self.index);
        let with_id = self.rows.values().filter(|row| row.message_id.is_some()).count();
        assert_eq!(self.by_message.values().map(Vec::len).sum::<usize>(), with_id);
    }

    /// The first of these row ids that is used by another message, in the table or among themselves.
    pub(super) fn first_clash<'a>(
        &self,
        new: impl Iterator<Item = (i64, &'a str, &'a Arc<Message>)>,
    ) -> Option<i64> {
        let mut seen = HashMap::new();
        for (id, group, message) in new {
            let in_table = self.rows.get(&id).is_some_and(|row| !row.holds(group, message));
            let earlier = seen.insert(id, (group, message));
            if in_table || earlier.is_some_and(|earlier| earlier != (group, message)) {
                return Some(id);
            }
        }
        None
    }

    /// Claims due rows, the longest due first.
    pub(super) fn claim(&mut self, now: Moment, owner: &Owner, request: &ClaimRequest) -> Claims {
        let lanes = lanes(owner, request);
        let (mut claimed, mut bytes) = (Vec::new(), 0);
        let mut next = self.index.first_due(&lanes);
        while claimed.len() < request.limit
            && let Some((due, id)) = next
            && due <= now
        {
            bytes += self.rows.get(&id).map_or(0, |row| row.message.body.len());
            if bytes > request.bytes && !claimed.is_empty() {
                break;
            }
            // Out of the index until the end: a lease of zero length must not be claimed twice in one call.
            if let Some(row) = self.rows.get(&id) {
                self.index.remove(row);
                claimed.push(id);
            }
            next = self.index.first_due(&lanes);
        }
        let rows = claimed.into_iter().filter_map(|id| self.claim_row(now, owner, id)).collect();
        Claims { rows, next_due: next.map(|(due, _)| due.saturating_sub(now)) }
    }

    /// Claims a row before it is due, if it still waits for the attempt after the one under this lease.
    pub(super) fn claim_waiting(&mut self, now: Moment, owner: &Owner, lease: Lease) -> Option<Claimed> {
        let row = self.rows.get(&lease.id)?;
        let state = row.state.as_ref()?;
        let waits = state.status == Status::Retrying && state.owner.is_none() && row.epoch == lease.epoch;
        if row.version != owner.version || !waits {
            return None;
        }
        self.index.remove(row);
        self.claim_row(now, owner, lease.id)
    }

    /// Claims a row that is out of the index, and puts it back.
    fn claim_row(&mut self, now: Moment, owner: &Owner, id: i64) -> Option<Claimed> {
        let row = self.rows.get_mut(&id)?;
        let state = row.state.as_mut()?;
        let suspect = suspect(row.epoch, state);
        if let Some(node) = suspect.as_ref().and_then(|suspect| suspect.crashed.as_ref()) {
            let error = crash_text(node);
            state.crashes = state.crashes.saturating_add(1);
            state.last_error = Some(error.clone());
            let (node, crash) = (Arc::clone(node), Some(row.epoch));
            row.attempts.push(Attempt { at: now, node, error, next: Some(now), crash });
        }
        row.epoch = row.epoch.wrapping_add(1);
        if state.status == Status::Delayed {
            state.status = Status::Scheduled;
        }
        state.hold(&owner.node, now.saturating_add(owner.lease));
        let notice = state.notice.then(|| {
            (state.reason.unwrap_or(Reason::Exhausted), state.last_error.clone().unwrap_or_default())
        });
        let claimed = Claimed {
            lease: Lease { id, epoch: row.epoch },
            message: Arc::clone(&row.message),
            group: Arc::clone(&row.group),
            attempts: state.attempts,
            attempts_before_rerun: state.attempts_before_rerun,
            age: now.saturating_sub(row.added),
            notice,
            crashes: state.crashes,
            suspect: suspect.filter(|_| !row.group.is_empty()),
        };
        self.index.add(row);
        Some(claimed)
    }

    /// Records that a suspect's handler starts, and returns whether its lease is still valid.
    pub(super) fn mark_started(&mut self, mark: StartMark) -> bool {
        if !self.is_held_under(mark.lease) {
            return false;
        }
        let state = self.rows.get_mut(&mark.lease.id).and_then(|row| row.state.as_mut());
        if let Some(state) = state {
            state.started = Some(Started { epoch: mark.lease.epoch, alone: mark.alone });
        }
        true
    }

    /// Takes back the crash that was counted for a lease.
    pub(super) fn withdraw_crash(&mut self, lease: Lease) {
        let Some(row) = self.rows.get_mut(&lease.id) else { return };
        let before = row.attempts.len();
        row.attempts.retain(|attempt| attempt.crash != Some(lease.epoch));
        if let Some(state) = row.state.as_mut().filter(|_| row.attempts.len() < before) {
            state.crashes = state.crashes.saturating_sub(1);
        }
    }

    /// Renews a lease, and returns whether it is still valid.
    pub(super) fn renew(&mut self, now: Moment, owner: &Owner, lease: Lease) -> bool {
        if !self.is_held_under(lease) {
            return false;
        }
        self.change(lease.id, |row| {
            if let Some(state) = &mut row.state {
                state.due = Some(now.saturating_add(owner.lease));
            }
        });
        true
    }

    /// Whether an outcome under this lease still counts. A released row has no valid lease, so that a repeated
    /// outcome is not counted twice.
    pub(super) fn is_held_under(&self, lease: Lease) -> bool {
        self.rows.get(&lease.id).is_some_and(|row| {
            row.epoch == lease.epoch && row.state.as_ref().is_some_and(|state| state.owner.is_some())
        })
    }

    /// Changes a row and keeps the indexes consistent.
    pub(super) fn change(&mut self, id: i64, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows.get_mut(&id) {
            self.index.remove(row);
            change(row);
            self.index.add(row);
        }
    }

    /// Deletes a row with everything that belongs to it.
    pub(super) fn delete(&mut self, id: i64) {
        let Some(row) = self.rows.remove(&id) else { return };
        self.index.remove(&row);
        if let Some(message_id) = &row.message_id {
            self.forget_message_id(message_id, id);
        }
    }

    /// Deletes expired rows and returns how many there were.
    pub(super) fn delete_expired(&mut self, now: Moment, expiry: &Expiry) -> u64 {
        let expired = self.index.expired(now.checked_sub(expiry.succeeded), now, expiry.limit);
        for id in &expired {
            self.delete(*id);
        }
        expired.len() as u64
    }
}

/// Whether a claimed row is a suspect: its last lease was neither completed nor released. A row with a pending notice
/// is not.
fn suspect(epoch: i32, state: &State) -> Option<Suspect> {
    let owner = state.owner.as_ref().filter(|_| state.status != Status::Failed)?;
    let blamed = state.started.is_some_and(|started| started.epoch == epoch && started.alone);
    Some(Suspect { started_before: state.started.is_some(), crashed: blamed.then(|| Arc::clone(owner)) })
}

/// The queues that a claim looks at, each once.
fn lanes(owner: &Owner, request: &ClaimRequest) -> Vec<Lane> {
    let mut groups = match request.side {
        Side::Outbox => vec![Arc::from("")],
        Side::Inbox => request.groups.clone(),
    };
    groups.sort_unstable();
    groups.dedup();
    groups.into_iter().map(|group| (Arc::clone(&owner.version), group)).collect()
}
