//! What an operator does to selected messages: re-run, edit, delete; each recorded with who did it.

use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use super::messages::Messages;
use crate::error::{StorageError, StorageErrorKind};
use crate::monitor::{Among, Change};
use crate::publish::payload::serialize;
use crate::storage::Status;

/// What is done to them.
#[allow(clippy::missing_errors_doc, reason = "the type says how all of them fail")]
impl Messages {
    /// Makes these messages due at once, on any node. Their retry policies start anew; recorded attempts stay, and re-runs
    /// are counted apart from them ([`Row::reruns`](crate::monitor::Row::reruns)). Returns the row ids for which it was done.
    pub async fn rerun(&self, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        self.rerun_with(ids, "re-ran it", None).await
    }

    /// [Re-runs](Self::rerun) all that match, up to the limit, and returns how many.
    ///
    /// A selection without any filter is refused: it would run every stored message once more, those that succeeded
    /// included. Nearly always [`parked`](Self::parked) is what is meant. Filters are `parked`, `status`, `reason`, `topic`,
    /// `group`, `error`, `since`, `until`, `version` with another version than the bus's own, and `limit`. To mean all, give
    /// a time: `.until(SystemTime::now())`.
    ///
    /// It goes from page to page, newest first. If it fails or is dropped halfway, what was done stays done.
    pub async fn rerun_all(&self) -> Result<u64, StorageError> {
        self.check_narrowed("re-run")?;
        let mut pages = self.pages();
        let mut count = 0;
        while let Some(ids) = pages.next().await? {
            count += self.rerun(&ids).await?.len() as u64;
        }
        Ok(count)
    }

    /// Replaces the payload of a message and [re-runs](Self::rerun) it. Its id, headers and attempts stay. `false` if there
    /// is no such message, if it is in work, or if it is not failed although the selection is of failed ones.
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

    /// As [`edit_and_rerun`](Self::edit_and_rerun), with the body as it is to be, which need not be JSON.
    pub async fn edit_raw_and_rerun(&self, id: i64, body: impl Into<Bytes>) -> Result<bool, StorageError> {
        let done = self.rerun_with(&[id], "edited and re-ran it", Some(body.into())).await?;
        Ok(!done.is_empty())
    }

    /// Deletes these messages with their attempts. Returns the row ids for which it was done. A received message that is
    /// deleted is handled again should the broker deliver it again.
    pub async fn delete(&self, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let done = self.engine.storage.delete(self.query.side, ids, self.among()).await?;
        self.log("deleted it", &done);
        Ok(done)
    }

    /// [Deletes](Self::delete) all that match, up to the limit, and returns how many. A selection without any filter is
    /// refused, as by [`rerun_all`](Self::rerun_all).
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

    async fn rerun_with(
        &self,
        ids: &[i64],
        what: &str,
        body: Option<Bytes>,
    ) -> Result<Vec<i64>, StorageError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let when = humantime::format_rfc3339_seconds(SystemTime::now());
        let change = Change { audit: Some(format!("{when} {} {what}", self.by)), body };
        let side = self.query.side;
        let done = self.engine.storage.rerun(side, ids, self.among(), &change).await?;
        self.log(what, &done);
        if !done.is_empty() {
            self.engine.storage.wake(side);
        }
        Ok(done)
    }

    /// A selection of failed messages never touches one that is no longer failed.
    fn among(&self) -> Among {
        if self.query.status == Some(Status::Failed) { Among::Failed } else { Among::All }
    }

    /// An error if all that match are all there are.
    fn check_narrowed(&self, done: &str) -> Result<(), StorageError> {
        let query = &self.query;
        let own = &*self.engine.storage.owner.version;
        let is_narrowed = query.status.is_some()
            || query.reason.is_some()
            || query.topic.is_some()
            || query.group.is_some()
            || query.error.is_some()
            || query.since.is_some()
            || query.until.is_some()
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
        StorageError::new(StorageErrorKind::Refused, self.engine.storage.name(), text)
    }

    /// Logs what an operator did.
    fn log(&self, what: &str, ids: &[i64]) {
        if !ids.is_empty() {
            tracing::info!(target: "cap_core::parked", by = self.by, what, side = ?self.query.side, count = ids.len(), ?ids, "by hand");
        }
    }
}
