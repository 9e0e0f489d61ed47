//! The counts of waiting messages that `health` reports: one query at a time, whose result is shared by all callers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::monitor::BoundedCounts;
use crate::runtime::engine::Engine;

/// The most rows of a kind that are counted.
const ROWS_COUNTED: u32 = 10_000;
/// How long a result is reused.
const REUSED_FOR: Duration = Duration::from_secs(1);
/// The timeout of a count. A storage usually stops a count that takes too long itself, and reports that.
const COUNT_TIMEOUT: Duration = Duration::from_secs(3);

/// The query for the counts of waiting messages, and its last result.
#[derive(Debug, Default)]
pub(crate) struct StorageProbe(Arc<Mutex<Option<Answer>>>);

#[derive(Debug)]
struct Answer {
    at: Instant,
    counts: Option<BoundedCounts>,
}

impl StorageProbe {
    /// Returns how many messages wait in the storage, at most a second old; `None` if that is not known. The result also
    /// updates the storage's health, except for a timeout, which says nothing about it.
    pub(crate) async fn counts(&self, engine: &Arc<Engine>, tasks: &TaskTracker) -> Option<BoundedCounts> {
        let mut last = Arc::clone(&self.0).lock_owned().await;
        if let Some(answer) = last.as_ref().filter(|answer| answer.at.elapsed() < REUSED_FOR) {
            return answer.counts.clone();
        }
        let engine = Arc::clone(engine);
        // A task of its own holds the lock, since the caller may be dropped half-way: the query would go on in the
        // storage, and the next caller would start another one beside it. The task ends by itself, by its timeout.
        let asked = tasks.spawn(async move {
            let counts = ask(&engine).await;
            *last = Some(Answer { at: Instant::now(), counts: counts.clone() });
            counts
        });
        asked.await.unwrap_or_default()
    }
}

async fn ask(engine: &Engine) -> Option<BoundedCounts> {
    match timeout(COUNT_TIMEOUT, engine.storage.bounded_counts(ROWS_COUNTED)).await {
        Ok(Ok(counts)) => {
            engine.storage.health.read_succeeded();
            counts
        }
        Ok(Err(error)) => {
            engine.storage.health.read_failed(&error);
            None
        }
        Err(_) => None,
    }
}
