//! The question that `health` asks the storage: one at a time, and its answer is shared.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::monitor::BoundedCounts;
use crate::runtime::engine::Engine;

/// So many rows of a kind are counted.
const LIMIT: u32 = 10_000;
/// How old an answer may be.
const FRESH: Duration = Duration::from_secs(1);
/// A storage ends a count that takes too long itself, and says so; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(3);

/// The question that `health` asks the storage, and its last answer.
#[derive(Debug, Default)]
pub(crate) struct StorageProbe(Arc<Mutex<Option<Answer>>>);

#[derive(Debug)]
struct Answer {
    at: Instant,
    counts: Option<BoundedCounts>,
}

impl StorageProbe {
    /// What waits in the storage, at most a second old; `None` if that is not known. The storage's health is noted as it
    /// answers. A count that does not come says nothing about it.
    pub(crate) async fn counts(&self, engine: &Arc<Engine>, tasks: &TaskTracker) -> Option<BoundedCounts> {
        let mut last = Arc::clone(&self.0).lock_owned().await;
        if let Some(answer) = last.as_ref().filter(|answer| answer.at.elapsed() < FRESH) {
            return answer.counts.clone();
        }
        let engine = Arc::clone(engine);
        // A task with the lock, since whoever asks may go away half-way: the question would be left to the storage, and
        // the next one asked beside it. It ends by itself within its time.
        let asked = tasks.spawn(async move {
            let counts = ask(&engine).await;
            *last = Some(Answer { at: Instant::now(), counts: counts.clone() });
            counts
        });
        asked.await.unwrap_or_default()
    }
}

async fn ask(engine: &Engine) -> Option<BoundedCounts> {
    match timeout(PATIENCE, engine.storage.bounded_counts(LIMIT)).await {
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
