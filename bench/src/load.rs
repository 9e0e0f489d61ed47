//! The messages of a round: how many are on their way, how many were handled, and how long they took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use crate::{BoxError, BoxResult};

/// The bytes of a payload as JSON.
const SIZE: usize = 256;

/// How long a round may stand still before it counts as failed.
const STALLED: Duration = Duration::from_secs(60);

/// What is published: 256 bytes of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Payload {
    /// The number of the message, from 0.
    pub(crate) number: u64,
    /// When it was published, in microseconds since the start of the round.
    pub(crate) at: u64,
    padding: String,
}

/// The progress of a round.
#[derive(Debug)]
pub(crate) struct Load {
    epoch: Instant,
    next: AtomicU64,
    handled: AtomicU64,
    /// When this many were handled, `done` is notified.
    expected: AtomicU64,
    done: Notify,
    first: Notify,
    /// How many may be on their way.
    window: Semaphore,
    latencies: Mutex<Vec<u32>>,
}

impl Load {
    /// A round in which at most `window` messages are on their way.
    pub(crate) fn new(window: usize) -> Arc<Self> {
        Arc::new(Self {
            epoch: Instant::now(),
            next: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            expected: AtomicU64::new(u64::MAX),
            done: Notify::new(),
            first: Notify::new(),
            window: Semaphore::new(window),
            latencies: Mutex::default(),
        })
    }

    /// Waits until `count` messages may be on their way, and returns the payloads.
    pub(crate) async fn enter(&self, count: u32) -> BoxResult<Vec<Payload>> {
        self.window.acquire_many(count).await?.forget();
        let first = self.next.fetch_add(u64::from(count), Ordering::Relaxed);
        Ok((first..first + u64::from(count)).map(|number| self.payload(number)).collect())
    }

    /// As [`enter`](Self::enter), for one message.
    pub(crate) async fn enter_one(&self) -> BoxResult<Payload> {
        self.window.acquire().await?.forget();
        Ok(self.payload(self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// A payload of exactly [`SIZE`] bytes.
    pub(crate) fn payload(&self, number: u64) -> Payload {
        let at = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        let digits = |number: u64| number.checked_ilog10().unwrap_or(0) as usize + 1;
        let used = r#"{"number":,"at":,"padding":""}"#.len() + digits(number) + digits(at);
        Payload { number, at, padding: "x".repeat(SIZE.saturating_sub(used)) }
    }

    /// Counts a message whose handler begins.
    pub(crate) fn handled(&self, payload: &Payload) {
        let now = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        let latency = u32::try_from(now.saturating_sub(payload.at)).unwrap_or(u32::MAX);
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).push(latency);
        self.window.add_permits(1);
        let handled = self.handled.fetch_add(1, Ordering::SeqCst) + 1;
        if handled == 1 {
            self.first.notify_one();
        }
        if handled >= self.expected.load(Ordering::SeqCst) {
            self.done.notify_one();
        }
    }

    /// How many messages have been published.
    pub(crate) fn published(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// How many messages have been handled.
    pub(crate) fn count(&self) -> u64 {
        self.handled.load(Ordering::SeqCst)
    }

    /// Waits until the first message is handled.
    pub(crate) async fn first_handled(&self) -> BoxResult<()> {
        tokio::time::timeout(STALLED, self.first.notified()).await.map_err(|_| stalled())
    }

    /// Waits until so many messages are handled.
    pub(crate) async fn all_handled(&self, count: u64) -> BoxResult<()> {
        self.expected.store(count, Ordering::SeqCst);
        while self.handled.load(Ordering::SeqCst) < count {
            tokio::time::timeout(STALLED, self.done.notified()).await.map_err(|_| stalled())?;
        }
        Ok(())
    }

    /// The latencies of all messages in microseconds.
    pub(crate) fn latencies(&self) -> Vec<u32> {
        std::mem::take(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn stalled() -> BoxError {
    format!("no message was handled for {STALLED:?}").into()
}

/// Joins tasks that publish, and fails if one has.
pub(crate) async fn join(mut tasks: tokio::task::JoinSet<BoxResult<()>>) -> BoxResult<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
