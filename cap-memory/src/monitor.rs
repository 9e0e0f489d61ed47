//! The operator interface of the in-memory storage.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::row::{Moment, Row, State};
use super::storage::MemoryStorage;
use super::table::Table;
use cap_adapter::error::StorageError;
use cap_adapter::monitor::{
    self, Act, Among, Bound, Change, Count, FailedAttempt, Lag, Monitor, NewAct, Query, SearchLimits,
    SearchPage,
};
use cap_adapter::storage::{Reason, Side, Status};

impl Monitor for MemoryStorage {
    async fn list(&self, query: &Query) -> Result<Vec<monitor::Row>, StorageError> {
        let (mut store, now) = self.lock();
        Ok(self.listed(store.table(query.side), query, now).map(|row| self.show(query.side, row)).collect())
    }

    async fn list_ids(&self, query: &Query) -> Result<Vec<i64>, StorageError> {
        let (mut store, now) = self.lock();
        Ok(self.listed(store.table(query.side), query, now).map(|row| row.id).collect())
    }

    async fn search(&self, query: &Query, limits: &SearchLimits) -> Result<SearchPage, StorageError> {
        let (mut store, now) = self.lock();
        let table = store.table(query.side);
        if let Some(id) = &query.message_id {
            let mut found = table.of_message(id);
            found.retain(|row| query.before.is_none_or(|before| row.id < before));
            found.retain(|row| self.wanted(row, query, now));
            let rows = found.into_iter().rev().take(query.limit);
            let rows = rows.map(|row| self.show(query.side, row)).collect();
            return Ok(SearchPage::listed(rows, query.limit));
        }
        let mut page = SearchPage::default();
        for row in table.before(query.before) {
            if page.rows.len() == query.limit {
                break;
            }
            if page.looked_at == limits.rows {
                page.bound = Some(Bound::Rows);
                break;
            }
            page.looked_at += 1;
            page.next = Some(row.id);
            if self.wanted(row, query, now) {
                page.rows.push(self.show(query.side, row));
            }
        }
        if page.bound.is_none() && page.rows.len() < query.limit {
            page.next = None;
        }
        Ok(page)
    }

    async fn get(&self, side: Side, id: i64) -> Result<Option<monitor::Row>, StorageError> {
        let (mut store, _) = self.lock();
        Ok(store.table(side).row(id).map(|row| self.show(side, row)))
    }

    async fn find(&self, side: Side, message_id: &str) -> Result<Vec<monitor::Row>, StorageError> {
        let (mut store, _) = self.lock();
        Ok(store.table(side).of_message(message_id).into_iter().map(|row| self.show(side, row)).collect())
    }

    async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        let (mut store, _) = self.lock();
        let attempts = store.table(side).row(id).map_or(&[][..], |row| &row.attempts);
        let mut counted = 0;
        let numbered = attempts.iter().map(|attempt| {
            // A crash has the number of the attempt that was running, and does not use one up.
            let number = counted + 1;
            counted += u32::from(attempt.crash.is_none());
            let next = attempt.next.and_then(|next| self.for_people(next));
            let at = self.show_moment(attempt.at);
            FailedAttempt::new(number, at, &*attempt.node, attempt.error.clone(), next)
        });
        Ok(numbered.collect())
    }

    async fn rerun(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> Result<Vec<i64>, StorageError> {
        let done = {
            let (mut store, now) = self.lock();
            let table = store.table(side);
            each(ids, |id| table.is_among(id, among) && table.rerun(now, id, change))
        };
        if !done.is_empty() {
            self.wake(side);
        }
        Ok(done)
    }

    async fn cancel(&self, ids: &[i64], keep: Duration) -> Result<Vec<i64>, StorageError> {
        let (mut store, now) = self.lock();
        Ok(each(ids, |id| store.outbox.cancel(now, id, keep)))
    }

    async fn delete(&self, side: Side, ids: &[i64], among: Among) -> Result<Vec<i64>, StorageError> {
        let (mut store, now) = self.lock();
        let table = store.table(side);
        Ok(each(ids, |id| table.is_among(id, among) && table.delete_idle(now, id)))
    }

    async fn record(&self, act: &NewAct) -> Result<(), StorageError> {
        let (mut store, now) = self.lock();
        store.audit.record(now, act.clone());
        Ok(())
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<Act>, StorageError> {
        let (store, _) = self.lock();
        let act = |(id, at, act): &(i64, Moment, NewAct)| Act::new(*id, self.show_moment(*at), act.clone());
        Ok(store.audit.before(before).take(limit).map(act).collect())
    }

    async fn lags(&self) -> Result<Option<Vec<Lag>>, StorageError> {
        let (mut store, now) = self.lock();
        let mut lags = Vec::new();
        for side in [Side::Outbox, Side::Inbox] {
            let oldest = store.table(side).oldest_waiting(now);
            lags.extend(oldest.into_iter().map(|(group, waiting)| Lag::new(side, group, waiting)));
        }
        Ok(Some(lags))
    }

    async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        let (mut store, _) = self.lock();
        let mut counts = Vec::new();
        for side in [Side::Outbox, Side::Inbox] {
            store.table(side).rows().for_each(|row| count(&mut counts, side, row));
        }
        Ok(counts)
    }
}

impl MemoryStorage {
    fn show(&self, side: Side, row: &Row) -> monitor::Row {
        let state = row.state.as_ref();
        let moment = |of: fn(&State) -> Option<Moment>| state.and_then(of).and_then(|at| self.for_people(at));
        monitor::Row {
            id: row.id,
            side,
            version: row.version.to_string(),
            name: row.message.name().unwrap_or_default().to_owned(),
            group: Arc::clone(&row.group),
            message: Arc::clone(&row.message),
            status: row.status(),
            reason: state.and_then(|state| state.reason),
            attempts: state.map_or_else(|| recorded(row), |state| state.attempts),
            reruns: state.map_or(0, |state| state.reruns),
            last_error: state.and_then(|state| state.last_error.clone()),
            added: self.show_moment(row.added),
            due: moment(|state| state.due),
            expires: moment(|state| state.expires),
            owner: state.and_then(|state| state.owner.as_deref()).map(str::to_owned),
        }
    }

    /// The rows of one page, newest first.
    fn listed<'a>(
        &'a self,
        table: &'a Table,
        query: &'a Query,
        now: Moment,
    ) -> impl Iterator<Item = &'a Row> {
        table.before(query.before).filter(move |row| self.wanted(row, query, now)).take(query.limit)
    }

    fn wanted(&self, row: &Row, query: &Query, now: Moment) -> bool {
        let reason = row.state.as_ref().and_then(|state| state.reason);
        let error = row.state.as_ref().and_then(|state| state.last_error.as_deref());
        query.status.is_none_or(|status| row.status() == status)
            && query.reason.is_none_or(|wanted| reason == Some(wanted))
            && query.without.is_none_or(|unwanted| reason != Some(unwanted))
            && query.version.as_ref().is_none_or(|version| *row.version == **version)
            && is_one_of(
                row.message.name().unwrap_or_default(),
                query.topic.as_ref(),
                query.or_topic.as_ref(),
            )
            && is_one_of(&row.group, query.group.as_ref(), query.or_group.as_ref())
            && query.error.as_ref().is_none_or(|part| error.is_some_and(|error| error.contains(part)))
            && query.since.is_none_or(|since| self.show_moment(row.added) >= since)
            && query.until.is_none_or(|until| self.show_moment(row.added) < until)
            && query.state.is_none_or(|state| row.operator_state(now) == state)
            && query.message_id.as_ref().is_none_or(|id| row.message_id.as_ref() == Some(id))
            && query.headers().all(|(name, value)| row.message.headers.get(name) == Some(value))
            && query.text.as_ref().is_none_or(|text| contains(&row.message.body, text))
            && query.node.as_ref().is_none_or(|node| row.was_on(node))
    }

    /// A time in the past, which the calendar can represent.
    fn show_moment(&self, past: Moment) -> SystemTime {
        self.for_people(past).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Table {
    fn is_among(&self, id: i64, among: Among) -> bool {
        among == Among::All || self.row(id).is_some_and(|row| row.status() == Status::Failed)
    }

    pub(super) fn rerun(&mut self, now: Moment, id: i64, change: &Change) -> bool {
        if self.row(id).is_none_or(|row| row.is_held(now)) {
            return false;
        }
        self.change(id, |row| {
            if !change.is_empty() {
                row.message = Arc::new(change.apply(&row.message));
            }
            let old = row.state.take();
            let attempts = old.as_ref().map_or_else(|| recorded(row), |state| state.attempts);
            row.state = Some(State {
                attempts,
                attempts_before_rerun: attempts,
                reruns: old.as_ref().map_or(0, |state| state.reruns).saturating_add(1),
                last_error: old.and_then(|state| state.last_error),
                ..State::fresh(Status::Scheduled, Some(now))
            });
        });
        true
    }

    fn cancel(&mut self, now: Moment, id: i64, keep: Duration) -> bool {
        if self.row(id).is_none_or(|row| row.status() != Status::Delayed) {
            return false;
        }
        self.change(id, |row| {
            let Some(state) = &mut row.state else { return };
            state.status = Status::Failed;
            state.reason = Some(Reason::Cancelled);
            state.expires = Some(now.saturating_add(keep));
            state.let_go(None);
        });
        true
    }

    pub(super) fn delete_idle(&mut self, now: Moment, id: i64) -> bool {
        if self.row(id).is_none_or(|row| row.is_held(now)) {
            return false;
        }
        self.delete(id);
        true
    }
}

impl Row {
    fn operator_state(&self, now: Moment) -> monitor::MessageState {
        let state = self.state.as_ref();
        let is_leased =
            state.is_some_and(|state| state.owner.is_some() && state.due.is_some_and(|due| due > now));
        monitor::MessageState::of(self.status(), state.and_then(|state| state.reason), is_leased)
    }

    /// Whether the node is working on it, or an attempt failed there.
    fn was_on(&self, node: &str) -> bool {
        let owner = self.state.as_ref().and_then(|state| state.owner.as_deref());
        owner == Some(node) || self.attempts.iter().any(|attempt| *attempt.node == *node)
    }
}

/// Whether a name is one of those that are wanted. Without a wanted one every name will do.
fn is_one_of(name: &str, wanted: Option<&String>, or: Option<&String>) -> bool {
    wanted.is_none_or(|wanted| wanted == name || or.is_some_and(|or| or == name))
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    part.is_empty() || body.windows(part.len()).any(|window| window == part)
}

fn recorded(row: &Row) -> u32 {
    let counted = row.attempts.iter().filter(|attempt| attempt.crash.is_none()).count();
    u32::try_from(counted).unwrap_or(u32::MAX)
}

/// Acts on each row once, however often its id was given.
fn each(ids: &[i64], mut act: impl FnMut(i64) -> bool) -> Vec<i64> {
    let ids: BTreeSet<i64> = ids.iter().copied().collect();
    ids.into_iter().filter(|id| act(*id)).collect()
}

fn count(counts: &mut Vec<Count>, side: Side, row: &Row) {
    let Some(state) = row.state.as_ref().filter(|state| state.reason != Some(Reason::Cancelled)) else {
        return;
    };
    let same =
        |count: &&mut Count| count.side == side && *count.group == *row.group && count.status == state.status;
    match counts.iter_mut().find(same) {
        Some(count) => count.count += 1,
        None => counts.push(Count::new(side, &*row.group, state.status, 1)),
    }
}
