//! Outcomes that the storage does not accept although it accepts others. They are retried separately and delay no others.

use tokio::time::{Instant, sleep_until};

use super::outcome_batch::{Tried, refuse, takes_renewals, write_once};
use super::outcome_queue::OutcomeItem;
use super::write::write_unrecorded;
use crate::error::StorageError;
use crate::runtime::backoff::Backoff;
use crate::runtime::engine::Engine;

/// Outcomes that are retried one by one, each with its own pauses. Their leases are renewed meanwhile.
pub(super) struct SetApart {
    waiting: Vec<Waiting>,
    limit: usize,
}

struct Waiting {
    item: OutcomeItem,
    backoff: Backoff,
    due: Instant,
}

impl SetApart {
    /// Creates an empty set with room for `limit` outcomes.
    pub(super) fn new(limit: usize) -> Self {
        Self { waiting: Vec::new(), limit }
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < self.limit
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, item: OutcomeItem, error: Option<&StorageError>) {
        tracing::warn!(
            row = item.row(),
            error = error.map(tracing::field::display),
            "storage rejects the outcome of a message but accepts others; retrying it separately"
        );
        let mut backoff = Backoff::default();
        let due = Instant::now() + backoff.next();
        self.waiting.push(Waiting { item, backoff, due });
    }

    /// Waits until an outcome is due for a retry; returns at once if there is none. Cancel safe: it only waits.
    pub(super) async fn due(&self) {
        if let Some(due) = self.waiting.iter().map(|waiting| waiting.due).min() {
            sleep_until(due).await;
        }
    }

    /// Retries the outcomes that are due, until one fails: an unavailable storage is not called for each of them.
    pub(super) async fn retry(&mut self, engine: &Engine) {
        let now = Instant::now();
        while let Some(index) = self.waiting.iter().position(|waiting| waiting.due <= now) {
            let Waiting { item, mut backoff, .. } = self.waiting.swap_remove(index);
            // An outcome that is at fault says nothing about the storage's health.
            let tried = write_once(engine, vec![item], write_unrecorded).await;
            let Tried::Failed(error, mut items) = tried else { continue };
            let Some(mut item) = items.pop() else { continue };
            if let Some(error) = error.filter(StorageError::is_refused)
                && takes_renewals(engine, std::slice::from_ref(&item)).await
            {
                let Some(next) = refuse(engine, &error, item) else { continue };
                item = next;
            }
            let due = Instant::now() + backoff.next();
            self.waiting.push(Waiting { item, backoff, due });
            break;
        }
    }
}
