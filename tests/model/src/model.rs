//! The reference model: what the documentation of `Storage` and `Monitor` says, over a list, with the time as an argument.
//!
//! It knows no index, no batch and no order of its own: each rule is a search through all rows. That it was written apart
//! from the stores is its use.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cap_core::message::Message;
use cap_core::monitor::{Among, Change};
use cap_core::storage::{
    Digest, Entry, Identity, Lease, NewIncoming, NewOutgoing, Owner, Reason, Retention, RowOutcome, Side,
    Status, Stored,
};

use crate::outcome;

mod operating;

/// A point in time: how long after the history began.
pub type Moment = Duration;

/// All rows of a store.
#[derive(Debug, Default)]
pub struct Model {
    /// In the order in which they came.
    pub rows: Vec<ModelRow>,
}

/// A message and all that is known of it.
#[derive(Debug, Clone)]
pub struct ModelRow {
    /// Which table.
    pub side: Side,
    /// The row's id.
    pub id: i64,
    /// The version of the bus that stored it.
    pub version: String,
    /// The receiving group; empty in the outbox.
    pub group: String,
    /// The message.
    pub message: Arc<Message>,
    /// Which message id it has that no other row of the group has.
    pub message_id: Option<String>,
    /// What it says.
    pub digest: Option<Digest>,
    /// When it was stored.
    pub added: Moment,
    /// How often it was claimed.
    pub epoch: i32,
    /// Whether the lease before the last claim had expired without a release.
    pub suspect: bool,
    /// Each attempt that failed.
    pub attempts: Vec<ModelAttempt>,
    /// None once it has succeeded with nothing to tell.
    pub state: Option<ModelState>,
}

/// An attempt that failed.
#[derive(Debug, Clone)]
pub struct ModelAttempt {
    /// Who made it.
    pub node: String,
    /// What went wrong.
    pub error: String,
    /// How long after it the next one was due, if there was to be one.
    pub next: Option<Duration>,
}

/// The state of a message that is not simply done.
#[derive(Debug, Clone)]
pub struct ModelState {
    /// Where it stands.
    pub status: Status,
    /// Why.
    pub reason: Option<Reason>,
    /// The last error.
    pub error: Option<String>,
    /// From when on anyone may claim it.
    pub due: Option<Moment>,
    /// Who has it.
    pub owner: Option<String>,
    /// When it will be deleted.
    pub expires: Option<Moment>,
    /// How often an operator ran it again.
    pub reruns: u32,
    /// How many attempts had failed by then.
    pub attempts_before_rerun: usize,
}

impl ModelState {
    fn new(status: Status, due: Moment) -> Self {
        Self {
            status,
            reason: None,
            error: None,
            due: Some(due),
            owner: None,
            expires: None,
            reruns: 0,
            attempts_before_rerun: 0,
        }
    }
}

impl ModelRow {
    /// Where the message stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.state.as_ref().map_or(Status::Succeeded, |state| state.status)
    }

    fn is_due(&self, now: Moment) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    fn due(&self) -> Option<Moment> {
        self.state.as_ref().and_then(|state| state.due)
    }

    /// Whether somebody works on it.
    #[must_use]
    pub fn is_held(&self, now: Moment) -> bool {
        let works = |state: &ModelState| state.owner.is_some() && state.status != Status::Failed;
        self.state.as_ref().is_some_and(works) && !self.is_due(now)
    }

    /// Gives the row to a node, and shows it as the node gets it.
    fn take(&mut self, now: Moment, owner: &Owner) -> Self {
        self.epoch += 1;
        let had_owner = |state: &ModelState| state.owner.is_some() && state.status != Status::Failed;
        self.suspect = self.side == Side::Inbox && self.state.as_ref().is_some_and(had_owner);
        if let Some(state) = &mut self.state {
            if state.status == Status::Delayed {
                state.status = Status::Scheduled;
            }
            state.owner = Some(owner.node.to_string());
            state.due = Some(now + owner.lease);
        }
        self.clone()
    }

    /// Puts in what an operator has changed.
    fn change(&mut self, change: &Change) {
        let mut message = (*self.message).clone();
        if let Some(said) = &change.audit {
            let said: String = said.chars().map(|letter| if letter == '\n' { ' ' } else { letter }).collect();
            let mut lines: VecDeque<String> = VecDeque::from([said]);
            if let Some(earlier) = message.headers.get("cap-audit") {
                earlier.split('\n').rev().for_each(|line| lines.push_front(line.to_owned()));
            }
            while lines.len() > 20 {
                lines.pop_front();
            }
            message.headers.insert("cap-audit", Vec::from(lines).join("\n"));
        }
        if let Some(body) = &change.body {
            message.body = body.clone();
        }
        self.message = Arc::new(message);
    }

    fn is_among(&self, among: Among) -> bool {
        among == Among::All || self.status() == Status::Failed
    }

    fn has_ended(&self, now: Moment, keep: Duration) -> bool {
        match &self.state {
            Some(ModelState { expires: Some(expires), .. }) => *expires <= now,
            Some(state) => state.status == Status::Succeeded && self.added + keep <= now,
            None => self.added + keep <= now,
        }
    }
}

impl Model {
    /// A row.
    #[must_use]
    pub fn row(&self, side: Side, id: i64) -> Option<&ModelRow> {
        self.rows.iter().find(|row| row.side == side && row.id == id)
    }

    fn row_mut(&mut self, side: Side, id: i64) -> Option<&mut ModelRow> {
        self.rows.iter_mut().find(|row| row.side == side && row.id == id)
    }

    /// Whether a word under this lease counts.
    #[must_use]
    pub fn is_live(&self, side: Side, lease: Lease) -> bool {
        self.row(side, lease.id).is_some_and(|row| {
            row.epoch == lease.epoch && row.state.as_ref().is_some_and(|state| state.owner.is_some())
        })
    }

    /// A message to be published.
    pub fn publish(&mut self, now: Moment, owner: &Owner, new: &NewOutgoing) -> Stored {
        let state = match new.delay {
            None => ModelState::new(Status::Scheduled, now),
            Some(delay) => ModelState::new(Status::Delayed, now + delay),
        };
        let message_id = new.message.id().map(str::to_owned);
        if self.rows.iter().any(|row| row.side == Side::Outbox && row.message_id == message_id) {
            return Stored::Duplicate;
        }
        let identity = (message_id, None);
        self.insert(now, owner, (Side::Outbox, new.id, "", &new.message), identity, state, new.held)
    }

    /// A message that was received.
    pub fn receive(&mut self, now: Moment, owner: &Owner, new: &NewIncoming) -> Stored {
        let (state, held) = match &new.entry {
            Entry::Scheduled { held } => (ModelState::new(Status::Scheduled, now), *held),
            Entry::Parked { reason, error, keep, notify } => {
                let mut state = ModelState::new(Status::Failed, now);
                state.due = None;
                state.reason = Some(*reason);
                state.error = Some(error.clone());
                state.expires = Some(now + *keep);
                (state, *notify)
            }
        };
        let message_id = new.stored_message_id().map(Cow::into_owned);
        if let Some(known) = self.meet(new, message_id.as_deref()) {
            return known;
        }
        let identity = (message_id, new.identity.digest);
        self.insert(now, owner, (Side::Inbox, new.id, &new.group, &new.message), identity, state, held)
    }

    fn has_message_id(&self, group: &str, message_id: &str) -> Option<usize> {
        let is_it = |row: &ModelRow| {
            row.side == Side::Inbox && row.group == *group && row.message_id.as_deref() == Some(message_id)
        };
        self.rows.iter().position(is_it)
    }

    /// What becomes of a message that comes under the id of another; `None` if nothing is in its way, or not any more.
    fn meet(&mut self, new: &NewIncoming, message_id: Option<&str>) -> Option<Stored> {
        let place = self.has_message_id(&new.group, message_id?)?;
        let own = new.own_message_id();
        let holder = &self.rows[place];
        let differ =
            holder.digest.is_some() && new.identity.digest.is_some() && holder.digest != new.identity.digest;
        if !differ
            || holder.id == new.id
            || own.is_some_and(|own| self.has_message_id(&new.group, &own).is_some())
        {
            return Some(Stored::Duplicate);
        }
        let state = holder.state.as_ref();
        let is_garbage = state.is_some_and(|state| {
            let attempts = match state.reason {
                Some(Reason::Undecodable) => 1,
                Some(Reason::MissingHeaders | Reason::NoSubscriber | Reason::Corrupt) => 0,
                _ => return false,
            };
            state.status == Status::Failed && state.reruns == 0 && holder.attempts.len() <= attempts
        });
        if !is_garbage || holder.epoch > 1 {
            return Some(Stored::Conflict);
        }
        let identity = Identity { digest: holder.digest, apart: true };
        let given = holder.message.id().unwrap_or_default();
        let own = identity.own_message_id(given);
        let is_free = own.as_ref().is_some_and(|own| self.has_message_id(&new.group, own).is_none());
        self.rows[place].message_id = own.filter(|_| is_free);
        None
    }

    fn insert(
        &mut self,
        now: Moment,
        owner: &Owner,
        (side, id, group, message): (Side, i64, &str, &Arc<Message>),
        (message_id, digest): (Option<String>, Option<Digest>),
        mut state: ModelState,
        held: bool,
    ) -> Stored {
        if self.row(side, id).is_some() {
            return Stored::Duplicate;
        }
        if held {
            state.owner = Some(owner.node.to_string());
            state.due = Some(now + owner.lease);
        }
        self.rows.push(ModelRow {
            side,
            id,
            version: owner.version.to_string(),
            group: group.to_owned(),
            message: Arc::clone(message),
            message_id,
            digest,
            added: now,
            epoch: i32::from(held),
            suspect: false,
            attempts: Vec::new(),
            state: Some(state),
        });
        Stored::New
    }

    /// Claims what is due: the rows as they are now, the longest due first, and how long until the next one is due.
    pub fn claim(
        &mut self,
        now: Moment,
        owner: &Owner,
        side: Side,
        groups: &[Arc<str>],
        limit: usize,
    ) -> (Vec<ModelRow>, Option<Duration>) {
        let wanted = |row: &&mut ModelRow| {
            row.side == side
                && row.version == *owner.version
                && (side == Side::Outbox || groups.iter().any(|group| **group == row.group))
                && row.due().is_some()
        };
        let mut rows: Vec<&mut ModelRow> = self.rows.iter_mut().filter(wanted).collect();
        rows.sort_by_key(|row| (row.due(), row.id));
        let count = rows.iter().take(limit).filter(|row| row.is_due(now)).count();
        let next = rows.get(count).and_then(|row| row.due()).map(|due| due.saturating_sub(now));
        (rows[..count].iter_mut().map(|row| row.take(now, owner)).collect(), next)
    }

    /// Whether a row still waits for the broker to bring the retry that this lease has left.
    #[must_use]
    pub fn is_waiting(&self, lease: Lease) -> bool {
        self.row(Side::Inbox, lease.id).is_some_and(|row| {
            row.epoch == lease.epoch
                && row.status() == Status::Retrying
                && row.state.as_ref().is_some_and(|state| state.owner.is_none())
        })
    }

    /// Claims a row of the inbox that the broker brings.
    pub fn claim_waiting(&mut self, now: Moment, owner: &Owner, lease: Lease) -> Option<ModelRow> {
        let waits = self.is_waiting(lease);
        let row = self.row_mut(Side::Inbox, lease.id)?;
        (waits && row.version == *owner.version).then(|| row.take(now, owner))
    }

    /// Lengthens a lease.
    pub fn renew(&mut self, now: Moment, owner: &Owner, side: Side, lease: Lease) -> bool {
        let live = self.is_live(side, lease);
        if live && let Some(state) = self.row_mut(side, lease.id).and_then(|row| row.state.as_mut()) {
            state.due = Some(now + owner.lease);
        }
        live
    }

    /// What has become of a message.
    pub fn complete(
        &mut self,
        now: Moment,
        owner: &Owner,
        side: Side,
        lease: Lease,
        outcome: &RowOutcome,
    ) -> bool {
        if !self.is_live(side, lease) {
            return false;
        }
        if let RowOutcome::Succeeded { retention: Retention::Delete, reason: None } = outcome {
            self.remove(side, lease.id);
        } else if let Some(row) = self.row_mut(side, lease.id) {
            outcome::apply(row, now, owner, outcome);
        }
        true
    }
}
