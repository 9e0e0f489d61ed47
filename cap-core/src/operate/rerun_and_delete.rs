//! An operator's actions on selected messages: re-run, edit, delete. Each is recorded with who did it.

use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use super::messages::Messages;
use crate::error::{StorageError, StorageErrorKind};
use crate::monitor::{Among, Change, MessageState, NewAct};
use crate::publish::payload::serialize;
use crate::storage::{Side, Status};

/// Actions.
#[allow(clippy::missing_errors_doc, reason = "the type says how all of them fail")]
impl Messages {
    /// Makes these messages due at once, on any node. Their retry policies start anew; recorded attempts stay, and re-runs
    /// are counted separately ([`Row::reruns`](crate::monitor::Row::reruns)). Returns the row ids of the messages that were
    /// re-run.
    pub async fn rerun(&self, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        self.rerun_with(ids, None).await
    }

    /// [Re-runs](Self::rerun) all that match, up to the limit, and returns how many.
    ///
    /// A selection without any filter is an error: it would re-run every stored message, including those that succeeded.
    /// [`parked`](Self::parked) is nearly always what is meant. Filters are `parked`, `status`, `reason`, `topic`, `group`,
    /// `error`, `since`, `until`, `state`, `message_id`, `correlation_id`, `header`, `text`, `node`, `version` with another
    /// version than the bus's own, and `limit`. To re-run all messages, set a time: `.until(SystemTime::now())`.
    ///
    /// It proceeds page by page, newest first. If it fails or is dropped half-way, the messages of earlier pages have been
    /// re-run.
    pub async fn rerun_all(&self) -> Result<u64, StorageError> {
        self.check_narrowed("re-run")?;
        let mut pages = self.pages();
        let mut count = 0;
        while let Some(ids) = pages.next().await? {
            count += self.rerun(&ids).await?.len() as u64;
        }
        Ok(count)
    }

    /// Replaces the payload of a message and [re-runs](Self::rerun) it. Its id, headers and attempts stay. Returns `false`
    /// if there is no such message, if it is being published or handled, or if it is not failed although the selection is of
    /// failed messages.
    pub async fn edit_and_rerun<T: Serialize + ?Sized>(
        &self,
        id: i64,
        payload: &T,
    ) -> Result<bool, StorageError> {
        let body = serialize(payload).map_err(|error| {
            self.refused(format!("the new payload of row {id} cannot be serialized: {error}"))
        })?;
        self.edit_raw_and_rerun(id, body).await
    }

    /// Replaces the body of a message and re-runs it, as [`edit_and_rerun`](Self::edit_and_rerun) does. The body need not be
    /// JSON.
    pub async fn edit_raw_and_rerun(&self, id: i64, body: impl Into<Bytes>) -> Result<bool, StorageError> {
        let done = self.rerun_with(&[id], Some(body.into())).await?;
        Ok(!done.is_empty())
    }

    /// Deletes these messages and their recorded attempts. Returns the row ids of the deleted messages. If the broker
    /// delivers a deleted message again, it is handled again.
    pub async fn delete(&self, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let done = self.storage.delete(self.query.side, ids, self.among()).await?;
        self.record("deleted it", NewAct::new(&*self.by, "delete", self.query.side, &done), &done).await;
        Ok(done)
    }

    /// [Deletes](Self::delete) all that match, up to the limit, and returns how many. A selection without any filter is
    /// an error, as for [`rerun_all`](Self::rerun_all).
    ///
    /// Without [`parked`](Self::parked), messages that are still to be published or handled are deleted too.
    pub async fn delete_all(&self) -> Result<u64, StorageError> {
        self.check_narrowed("deleted")?;
        let mut pages = self.pages();
        let mut count = 0;
        while let Some(ids) = pages.next().await? {
            count += self.delete(&ids).await?.len() as u64;
        }
        Ok(count)
    }

    /// Cancels delayed messages of the outbox that are not due yet, as [`Cap::cancel`](crate::Cap::cancel) does. Returns
    /// the row ids of the cancelled messages. A selection of received messages has none that are delayed.
    pub async fn cancel(&self, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        if ids.is_empty() || self.query.side == Side::Inbox {
            return Ok(Vec::new());
        }
        let done = self.storage.cancel(ids, self.storage.keep_cancelled).await?;
        self.record("cancelled it", NewAct::new(&*self.by, "cancel", self.query.side, &done), &done).await;
        Ok(done)
    }

    /// Re-runs messages, with a new body if there is one.
    async fn rerun_with(&self, ids: &[i64], body: Option<Bytes>) -> Result<Vec<i64>, StorageError> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let side = self.query.side;
        let (what, name) =
            if body.is_some() { ("edited and re-ran it", "edit") } else { ("re-ran it", "rerun") };
        // Read before it is replaced, for the audit.
        let former = if body.is_some() { self.storage.get(side, *first).await? } else { None };
        let when = humantime::format_rfc3339_seconds(SystemTime::now());
        let change = Change { audit: Some(format!("{when} {} {what}", self.by)), body };
        let done = self.storage.rerun(side, ids, self.among(), &change).await?;
        if !done.is_empty() {
            self.storage.wake.wake(side);
        }
        let mut act = NewAct::new(&*self.by, name, side, &done);
        if let Some(former) = former {
            act = act.former_body(&former.message.body);
        }
        self.record(what, act, &done).await;
        Ok(done)
    }

    /// Which messages an action applies to. With a selection of failed messages it skips those that are no longer failed.
    fn among(&self) -> Among {
        if self.query.status == Some(Status::Failed) || self.query.state == Some(MessageState::Parked) {
            Among::Failed
        } else {
            Among::All
        }
    }

    /// Returns an error if no filter narrows the selection.
    fn check_narrowed(&self, done: &str) -> Result<(), StorageError> {
        let query = &self.query;
        let own = &*self.storage.version;
        let is_narrowed = query.status.is_some()
            || query.reason.is_some()
            || query.topic.is_some()
            || query.group.is_some()
            || query.error.is_some()
            || query.since.is_some()
            || query.until.is_some()
            || query.state.is_some()
            || query.message_id.is_some()
            || query.correlation_id.is_some()
            || query.header.is_some()
            || query.text.as_ref().is_some_and(|text| !text.is_empty())
            || query.node.is_some()
            || query.version.as_deref().is_some_and(|version| version != own)
            || self.limit.is_some();
        if is_narrowed {
            return Ok(());
        }
        let text = format!(
            "every stored message would be {done}; narrow the selection by a filter such as .parked()"
        );
        Err(self.refused(text))
    }

    fn refused(&self, text: String) -> StorageError {
        StorageError::new(StorageErrorKind::Refused, self.storage.name(), text)
    }

    /// Logs what an operator did, and records it in the audit. What is done stays done if it cannot be recorded.
    async fn record(&self, what: &str, act: NewAct, ids: &[i64]) {
        if ids.is_empty() {
            return;
        }
        tracing::info!(target: "cap_core::parked", by = self.by, what, side = ?self.query.side, count = ids.len(), ?ids, "operator action on messages");
        if let Err(error) = self.storage.record(&act).await {
            tracing::warn!(%error, by = self.by, what, "operator action is not in the audit: it could not be recorded");
        }
    }
}
